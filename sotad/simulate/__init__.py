"""An operator-level model of one forward pass: shapes, FLOPs, bytes and the least time a GPU needs for them."""
