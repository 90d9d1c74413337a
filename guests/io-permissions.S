# I/O privilege: IOPL and the permission bit map of the TSS (SDM Vol. 1 19.5; Vol. 2A IN).

#include "kernel.inc"

	.code64
	.globl main
main:
	movb $0, tss + 0x68 + 2
	# Another TSS with the bit map at 68H: 16 bytes of it, for ports 0 to 7FH, and the byte of ones behind
	mov $tss, %eax
	mov %ax, gdt + FREE + 2
	movw $0x68 + 16, gdt + FREE
	shr $16, %eax
	mov %al, gdt + FREE + 4
	mov %ah, gdt + FREE + 7
	movb $0x89, gdt + FREE + 5
	movb $0, gdt + FREE + 6
	movq $0, gdt + FREE + 8
	mov tss64 + 4, %rax
	mov %rax, tss + 4
	mov $FREE, %ecx
	ltr %cx

	mov $0x10, %edx
	RUNS "IN at CPL 0", in %dx, %al
	.macro USER_IO name:req, vector:req, insn:vararg
	TRY
	ENTER_USER 2
8701:	\insn
	LEAVE_USER
	END_TRY
	.if \vector < 0
	CHECK "\name", fault_vector, $-1
	.else
	EXPECT "\name", \vector, 0, 8701b
	.endif
	.endm
	USER_IO "IN of a port whose bit is clear", -1, in %dx, %al
	USER_IO "OUT to a port whose bit is clear", -1, out %al, %dx
	movb $1, tss + 0x68 + 2
	USER_IO "IN of a port whose bit is set", GP, in %dx, %al
	USER_IO "OUT to a port whose bit is set", GP, out %al, %dx
	USER_IO "IN with an immediate port", GP, in $0x10, %al
	USER_IO "OUT with an immediate port", GP, out %al, $0x10
	mov $scratch, %edi
	mov $scratch, %esi
	mov $0x10, %edx
	USER_IO "INS", GP, insb
	USER_IO "OUTS", GP, outsb
	mov $1, %ecx
	USER_IO "REP OUTS", GP, rep outsb
	RUNS "the bit map is not for CPL 0", in %dx, %al
	mov $0x11, %edx
	USER_IO "the next port", -1, in %dx, %al
	# All bytes of an access are checked, across bytes of the map too
	mov $0x0f, %edx
	USER_IO "byte port before the forbidden one", -1, in %dx, %al
	USER_IO "word across it", GP, in %dx, %ax
	mov $0x0d, %edx
	USER_IO "doubleword across it", GP, in %dx, %eax
	mov $0x0c, %edx
	USER_IO "doubleword up to it", -1, in %dx, %eax
	# IOPL 3 needs no map
	mov $0x10, %edx
	USER_RUNS "IN with IOPL 3", in %dx, %al
	# At the end of the map: the last port needs the byte behind it
	mov $0x7f, %edx
	USER_IO "last port of the map", -1, in %dx, %al
	USER_IO "word beyond the map", GP, in %dx, %ax
	mov $0x80, %edx
	USER_IO "port behind the map", GP, in %dx, %al
	mov $0xffff, %edx
	USER_IO "last port of all", GP, in %dx, %al
	# Two bytes are always read: the map byte and the next must lie within the limit
	movw $0x68 + 15, gdt + FREE
	andb $~2, gdt + FREE + 5
	mov $FREE, %ecx
	ltr %cx
	mov $0x7f, %edx
	USER_IO "last port without the byte behind", GP, in %dx, %al
	mov $0x77, %edx
	USER_IO "eight ports before", -1, in %dx, %al
	# A map offset beyond the limit: nothing is allowed
	movw $0x100, tss + 0x66
	mov $0x20, %edx
	USER_IO "offset beyond the limit", GP, in %dx, %al
	movw $0x68, tss + 0x66
	USER_IO "offset within the limit again", -1, in %dx, %al
	ret

	.data
	.balign 4096
tss:	.fill 0x66, 1, 0
	.word 0x68
	.fill 16, 1, 0
	.byte 0xff
