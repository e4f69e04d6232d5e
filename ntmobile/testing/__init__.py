"""An in-memory network and virtual internet, for this project's tests and for applications'."""
