# A stream watched for what a compiled model has not learned:
#
#	tail -f readings.csv | dis run watch.dis MODEL.dis
#
# Each row of numbers on standard input is answered at once with a line: its number, how surprising
# it is (minus the logarithm of the highest probability), and "anomaly" if that is more than four
# mean deviations above the mean of the rows so far, both as moving averages.

init:
	load	sysname(mp),$0,sys(mp)
	load	mlname(mp),$1,ml(mp)
	bnew	ml(mp),nil(mp),loaded
	raise	noml(mp)
loaded:
	tail	init.argv(fp),init.argv(fp)
	beqw	init.argv(fp),nil(mp),usage
	headp	init.argv(fp),init.path(fp)
	load	init.path(fp),$2,model(mp)
	bnew	model(mp),nil(mp),opened
	frame	$Print1,init.call(fp)
	movp	message(mp),32(init.call(fp))
	movp	init.path(fp),36(init.call(fp))
	lea	init.forgotten(fp),16(init.call(fp))
	mcall	init.call(fp),$Sys.print,sys(mp)
	raise	failed(mp)
usage:
	frame	$Print0,init.call(fp)
	movp	help(mp),32(init.call(fp))
	lea	init.forgotten(fp),16(init.call(fp))
	mcall	init.call(fp),$Sys.print,sys(mp)
	raise	failed(mp)

opened:				# samples of the model's shape from standard input
	mframe	model(mp),$Shape,init.call(fp)
	lea	init.shape(fp),16(init.call(fp))
	mcall	init.call(fp),$Shape,model(mp)
	mframe	sys(mp),$Sys.fildes,init.call(fp)
	movw	$0,32(init.call(fp))
	lea	init.fd(fp),16(init.call(fp))
	mcall	init.call(fp),$Sys.fildes,sys(mp)
	mframe	ml(mp),$Ml.samples,init.call(fp)
	movp	init.fd(fp),32(init.call(fp))
	movp	inputs(mp),36(init.call(fp))
	movp	targets(mp),40(init.call(fp))
	movp	init.shape(fp),44(init.call(fp))
	lea	init.samples(fp),16(init.call(fp))
	mcall	init.call(fp),$Ml.samples,ml(mp)
	movw	$0,init.row(fp)
next:				# one row at a time, as it comes
	mframe	ml(mp),$Ml.take,init.call(fp)
	movp	init.samples(fp),32(init.call(fp))
	movw	$1,36(init.call(fp))
	lea	init.x(fp),16(init.call(fp))
	mcall	init.call(fp),$Ml.take,ml(mp)
	beqw	init.x(fp),nil(mp),end
	mframe	model(mp),$Forward,init.call(fp)
	movp	init.x(fp),32(init.call(fp))
	lea	init.x(fp),16(init.call(fp))
	mcall	init.call(fp),$Forward,model(mp)
	mframe	ml(mp),$Ml.log_softmax,init.call(fp)
	movp	init.x(fp),32(init.call(fp))
	movw	$-1,36(init.call(fp))
	lea	init.x(fp),16(init.call(fp))
	mcall	init.call(fp),$Ml.log_softmax,ml(mp)
	mframe	ml(mp),$Ml.reals,init.call(fp)
	movp	init.x(fp),32(init.call(fp))
	lea	init.values(fp),16(init.call(fp))
	mcall	init.call(fp),$Ml.reals,ml(mp)
	frame	$Least,init.call(fp)
	movp	init.values(fp),least.values(init.call(fp))
	lea	init.score(fp),16(init.call(fp))
	call	init.call(fp),least

	movp	ordinary(mp),init.verdict(fp)
	subf	init.mean(fp),init.score(fp),init.gap(fp)
	blew	init.row(fp),$9,learn	# the first rows only set the scale
	mulf	four(mp),init.spread(fp),init.limit(fp)
	blef	init.gap(fp),init.limit(fp),learn
	movp	anomaly(mp),init.verdict(fp)
	jmp	tell
learn:				# an anomaly does not move the averages
	bnew	init.row(fp),$0,adapt
	movf	init.score(fp),init.mean(fp)
	movf	init.score(fp),init.spread(fp)
	jmp	tell
adapt:
	mulf	share(mp),init.gap(fp),init.limit(fp)
	addf	init.limit(fp),init.mean(fp)
	bgef	init.gap(fp),zero(mp),above
	negf	init.gap(fp),init.gap(fp)
above:
	subf	init.spread(fp),init.gap(fp)
	mulf	share(mp),init.gap(fp)
	addf	init.gap(fp),init.spread(fp)
tell:
	frame	$Print3,init.call(fp)
	movp	line(mp),32(init.call(fp))
	movw	init.row(fp),36(init.call(fp))
	movf	init.score(fp),40(init.call(fp))
	movp	init.verdict(fp),48(init.call(fp))
	lea	init.forgotten(fp),16(init.call(fp))
	mcall	init.call(fp),$Sys.print,sys(mp)
	addw	$1,init.row(fp)
	jmp	next
end:
	ret

least:				# minus the highest of some numbers
	lena	least.values(fp),least.left(fp)
	movf	zero(mp),least.best(fp)
	movw	$0,least.i(fp)
	blew	least.left(fp),$0,found
	indf	least.values(fp),least.place(fp),least.i(fp)
	movf	0(least.place(fp)),least.best(fp)
seek:
	addw	$1,least.i(fp)
	bgew	least.i(fp),least.left(fp),found
	indf	least.values(fp),least.place(fp),least.i(fp)
	blef	0(least.place(fp)),least.best(fp),seek
	movf	0(least.place(fp)),least.best(fp)
	jmp	seek
found:
	negf	least.best(fp),0(16(fp))
	ret

	entry	init,Init
	desc	Data,112,(0,4,8,12,16,20,24,28,32,36,40,44,48,52,56,60,64)
	desc	Init,120,(32,36,40,44,48,52,56,60,64)
init.argv = 36
init.path = 40
init.shape = 44
init.fd = 48
init.samples = 52
init.x = 56
init.values = 60
init.verdict = 64
init.row = 68
init.call = 72
init.forgotten = 76
init.score = 80
init.mean = 88
init.spread = 96
init.gap = 104
init.limit = 112
	desc	Least,64,(32)
least.values = 32
least.left = 36
least.i = 40
least.place = 44
least.best = 48
	desc	Print0,40,(32)
	desc	Print1,40,(32,36)
	desc	Print3,56,(32,48)

	var	@mp,112
nil = 0
sys = 4
ml = 8
model = 12
	string	@mp+sysname,"$Sys"
sysname = 16
	string	@mp+mlname,"$Ml"
mlname = 20
	string	@mp+noml,"no module $Ml here"
noml = 24
	string	@mp+failed,"fail:watch"
failed = 28
	string	@mp+message,"watch: %s: %r\n"
message = 32
	string	@mp+help,"usage: watch.dis MODEL.dis < ROWS.csv\n"
help = 36
	string	@mp+inputs,"inputs"
inputs = 40
	string	@mp+targets,"label"
targets = 44
	string	@mp+line,"%d\t%.3f%s\n"
line = 48
	string	@mp+ordinary,""
ordinary = 52
	string	@mp+anomaly,"\tanomaly"
anomaly = 56
	real	@mp+four,4
four = 72
	real	@mp+share,0.05
share = 80
	real	@mp+zero,0
zero = 88

	module	Watch
	link	Init,init,0x4244b354,"init"
	ldts	@ldt,3
	imports	"$Sys","fildes","print"
	imports	"$Ml","log_softmax","reals","samples","take"
	word	@ldt+0,2
	ext	@ldt+0,0xe6504a2e,"forward"
	ext	@ldt+0,0x34c3e521,"shape"
Forward = 0
Shape = 1
	source	"watch.s"
