"""Image hosts: a picture goes in, a public link comes out."""
