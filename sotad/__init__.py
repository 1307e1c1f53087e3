"""sotad: a daemon that runs LLM-serving performance campaigns and can prove every decision it took."""
