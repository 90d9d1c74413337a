# A fault while #DF is delivered is a shutdown (SDM Vol. 3A 6.15 #DF). Its exit status is 3 here; QEMU with -no-reboot ends.

#include "kernel.inc"

	.code64
	.globl main
main:
	movw $0, scratch
	movq $idt64, scratch + 2
	CHECK "still running", $1, $1
	lidt scratch
	ud2
	CHECK "not reached", $1, $2
	ret
