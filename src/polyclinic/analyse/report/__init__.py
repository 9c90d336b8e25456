"""The page of an analysis: pictures, tables, the files beside it, and two analyses side by side."""
