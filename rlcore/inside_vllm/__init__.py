"""Code inside vLLM's processes: the plugin, the worker's extension, loading of published weights."""
