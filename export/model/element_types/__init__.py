"""Networks in other element types: float16 and bfloat16 models, widened and narrowed."""
