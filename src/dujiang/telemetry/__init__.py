"""What happens, turned into lines."""
