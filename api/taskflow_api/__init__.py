"""The REST facade: writes Task resources, reads history and objects, never publishes. The only importer of fastapi."""
