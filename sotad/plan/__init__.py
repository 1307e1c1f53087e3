"""Plans: from a draft in Markdown to data, and from data to a document that people read."""
