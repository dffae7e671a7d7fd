# What a compiled model (nn compile) offers to the programs that load it. Include sys.m, draw.m and
# ml.m before.
Model: module
{
	init:	fn(ctxt: ref Draw->Context, argv: list of string);
	forward:	fn(x: ref Ml->Tensor): ref Ml->Tensor;	# a batch of inputs to a batch of outputs
	labels:	fn(): list of string;	# what the outputs stand for
	shape:	fn(): list of int;	# of one sample of the input
	info:	fn(): string;	# name, input and output shape, as JSON
};
