"""Read models of the log: each a folder with its SQL, folded by one runner whose cursor moves in the view's own transaction."""
