"""`pitwall demo`: a simulated cluster with ingest, worker and page before it, in one directory."""
