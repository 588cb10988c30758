"""The disk: pictures (streamed, checked, renamed into place), a batch's folder with its marker, and its reports."""
