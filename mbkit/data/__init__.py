"""Data sets: files of recorded transitions in and out, checked row by row, and the scores by which results on them are told."""
