"""Small programs that measure, run inside hosts of a lab; scripts without imports of ours."""
