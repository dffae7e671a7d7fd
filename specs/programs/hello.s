# Greets the world through Inferno's $Sys.
#
#     dis asm specs/programs/hello.s -o hello.dis
#     dis run hello.dis

    module Hello
    entry init, Init
    link Init,init,0x4244b354,"init"    # fn(nil: ref Draw->Context, nil: list of string)
    imports "$Sys","print"

# The frame of init, then what it makes for print: its argument is at 32 there.
count = 40
made = 44
format = 32
result = 16
    desc $0,12,(path, text, sys)
    desc Init,48,(32, 36)
    desc Print,40,(format)

# The module data.
path = 0
text = 4
sys = 8
    var @mp,12
    string @mp+path,"$Sys"
    string @mp+text,"hello, world\n"

init: load path(mp),$0,sys(mp)
    frame $Print,made(fp)
    movp text(mp),format(made(fp))
    lea count(fp),result(made(fp))
    mcall made(fp),$Sys.print,sys(mp)
    ret
