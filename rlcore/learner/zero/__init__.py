"""The policy's weights under DeepSpeed's ZeRO: the engine, its pieces, saving and gathering them."""
