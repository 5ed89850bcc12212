"""Measuring self-correction: metrics, intervals, result tables and reports. Nothing here needs a model."""
