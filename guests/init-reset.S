# INIT of the bootstrap processor where the shutdown byte asks for nothing: the machine is reset. Its exit status is 0 here; QEMU with -no-reboot
# ends. Needs a whole machine.

#include "kernel.inc"

	.code32
	.globl main32
main32:
	CHECK32 "still running", $1, $1
	mov $0x0f, %al
	out %al, $0x70
	xor %al, %al
	out %al, $0x71
	movl $0, 0xfee00310
	movl $0x4500, 0xfee00300
1:	hlt
	jmp 1b
