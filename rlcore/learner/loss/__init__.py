"""The objective: surrogates, KL estimators, averaging, mismatch correction, and their figures."""
