"""What weights become: learned forms, packed formats, folded, drawn anew."""
