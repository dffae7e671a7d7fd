"""Operations by themselves as kernels: shapes and attributes are known, all inputs vary.

What a plan does for a graph is done here for one operation: places are computed once for its
shapes, and kept with its buffers. Weights are read as they lie, or packed at each call.
"""
