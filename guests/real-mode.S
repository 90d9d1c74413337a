# Real-address mode: interrupts, segments, wrapping, what is undefined there, "unreal" limits (SDM Vol. 3B 20.1; Vol. 3A 9.9).

#include "kernel.inc"
#include "real.inc"

	.code32
	.globl main32
main32:
	mov $real, %eax
	call enter_real
	CHECK32 "back in protected mode", $1, $1
	# Unreal mode: the limit of a segment loaded in protected mode stays
	mov $unreal, %eax
	call enter_real
	CHECK32 "back again", $1, $1
	# PE set without a far jump: still 16-bit code of the old CS
	mov $half, %eax
	call enter_real
	ret

	.section .low.text, "ax"
	.code16
real:
	CHECK16 "in real mode", $1, $1
	mov %cr0, %eax
	and $1, %eax
	CHECK16 "CR0.PE", %eax, $0
	xor %eax, %eax
	mov %cs, %ax
	CHECK16 "CS", %eax, $0
	# Interrupts: FLAGS, CS, IP as words; IF and TF clear inside
	TRAPS16 "INT 40", 40, int $40
	TRAPS16 "INT3", BP, int3
	TRAPS16 "INT1", DB, .byte 0xf1
	FAULTS16 "UD2", UD, ud2
	xor %edx, %edx
	xor %ecx, %ecx
	FAULTS16 "DIV by zero", DE, div %cx
	mov $0x7fff, %ax
	inc %ax
	TRAPS16 "INTO", OF, into
	movw $5, scratch16
	movw $10, scratch16 + 2
	mov $11, %ax
	FAULTS16 "BOUND", BR, bound %ax, scratch16
	pushw $(FL_IF | FL_CF | 2)
	popfw
	movw $inside16, ivt + 41 * 4
	int $41
	pushf
	pop %dx
	cli
	movzwl seen_flags, %eax
	and $(FL_IF | FL_TF | FL_CF), %eax
	CHECK16 "flags inside an interrupt", %eax, $FL_CF
	movzwl seen_pushed, %eax
	and $(FL_IF | FL_CF), %eax
	CHECK16 "flags pushed", %eax, $(FL_IF | FL_CF)
	movzwl %dx, %eax
	and $(FL_IF | FL_CF), %eax
	CHECK16 "flags behind IRET", %eax, $(FL_IF | FL_CF)
	# The limit of the table counts
	movw $40 * 4 - 1, pointer16
	movl $ivt, pointer16 + 2
	lidtl pointer16
	FAULTS16 "INT beyond the limit of the table", GP, int $40
	lidtl real_idt_pointer
	# A table elsewhere: base 0 with limit 3FFH as at reset
	movw $0x3ff, pointer16
	movl $0, pointer16 + 2
	mov 0x2a * 4, %ebx
	movw $inside16, 0x2a * 4
	movw $0, 0x2a * 4 + 2
	lidtl pointer16
	movw $0, seen_flags
	int $0x2a
	lidtl real_idt_pointer
	mov %ebx, 0x2a * 4
	movzwl seen_flags, %eax
	and $2, %eax
	CHECK16 "vector table at 0", %eax, $2

	# Segments: base = selector * 16, limit FFFFH
	movl $0x11223344, scratch16
	mov $scratch16, %eax
	shr $4, %eax
	mov %ax, %es
	mov $scratch16, %ebx
	and $0xf, %ebx
	CHECK16 "segment base", %es:(%ebx), $0x11223344
	FAULTS16 "doubleword across FFFFH", GP, addr32 mov %ds:0xfffd, %eax
	FAULTS16 "word at FFFFH", GP, mov %ds:0xffff, %ax
	RUNS16 "byte at FFFFH", mov %ds:0xffff, %al
	FAULTS16 "offset above FFFFH", GP, addr32 mov %ds:0x10000, %al
	mov $0xffff, %bx
	FAULTS16 "16-bit addressing: word at FFFFH", GP, mov (%bx), %ax
	RUNS16 "16-bit effective addresses wrap", mov 1(%bx), %al
	mov $0xfffe, %bp
	FAULTS16 "through SS: #SS", SS_, mov 1(%bp), %ax
	# Addresses above 1 MiB are reached with FFFF:xxxx (A20 is on)
	mov $0xffff, %ax
	mov %ax, %es
	mov %es:0x10, %eax
	CHECK16 "FFFF:0010 is 1 MiB", %eax, $0x1badb002
	# CS is writable, and its loads are like those of others
	movw $0x1234, %cs:scratch16
	movzwl scratch16, %eax
	CHECK16 "write through CS", %eax, $0x1234
	# Stack: SP wraps at 64 KiB; a word at offset FFFFH is #SS
	mov %esp, %ebp
	mov $0, %esp
	push %ax
	mov %esp, %ecx
	mov %ebp, %esp
	CHECK16 "PUSH with SP 0", %ecx, $0xfffe
	mov %sp, %bp
	pushl $0x12345678
	popl %ecx
	CHECK16 "32-bit operands", %ecx, $0x12345678
	# PUSH SP pushes the old value
	mov %sp, %bp
	push %sp
	pop %cx
	movzwl %bp, %eax
	movzwl %cx, %ecx
	CHECK16 "PUSH SP", %ecx, %eax
	pusha
	popa
	# Undefined in real mode (Vol. 2: #UD in real-address mode)
	FAULTS16 "LAR", UD, .byte 0x0f, 0x02, 0xc0
	FAULTS16 "LSL", UD, .byte 0x0f, 0x03, 0xc0
	FAULTS16 "VERR", UD, .byte 0x0f, 0x00, 0xe0
	FAULTS16 "SLDT", UD, .byte 0x0f, 0x00, 0xc0
	FAULTS16 "LLDT", UD, .byte 0x0f, 0x00, 0xd0
	FAULTS16 "STR", UD, .byte 0x0f, 0x00, 0xc8
	FAULTS16 "LTR", UD, .byte 0x0f, 0x00, 0xd8
	FAULTS16 "ARPL", UD, .byte 0x63, 0xc0
	FAULTS16 "SYSENTER", GP, .byte 0x0f, 0x34
	FAULTS16 "SYSEXIT", GP, .byte 0x0f, 0x35
	FAULTS16 "SYSCALL", UD, .byte 0x0f, 0x05
	FAULTS16 "INVPCID", UD, .byte 0x66, 0x0f, 0x38, 0x82, 0x06, 0, 0
	FAULTS16 "RDFSBASE", UD, .byte 0xf3, 0x0f, 0xae, 0xc0
	FAULTS16 "LOCK NOP", UD, .byte 0xf0, 0x90
	RUNS16 "SGDT", sgdt scratch16
	RUNS16 "SMSW", smsw %ax
	RUNS16 "CLTS", clts
	mov $0x277, %ecx
	RUNS16 "RDMSR", rdmsr
	RUNS16 "CPUID", cpuid
	RUNS16 "WBINVD", wbinvd
	# LGDT with a 16-bit operand takes 24 bits of the base
	sgdtl scratch16
	mov scratch16 + 2, %ecx
	movb $0x55, scratch16 + 5
	lgdtw scratch16
	sgdtl scratch16 + 8
	mov scratch16 + 10, %eax
	and $0xffffff, %ecx
	CHECK16 "16-bit LGDT: 24 bits of the base", %eax, %ecx
	lgdtl gdt_pointer
	# Near branches: the upper half of IP is cleared with 16-bit operands, checked with 32-bit ones
	TRY16
	mov $0x10000, %eax
8701:	.byte 0x66
	jmp *%ax
	END_TRY16
	EXPECT16 "JMP to 10000H", GP, 8701b
	# Far transfers
	lcall $0, $far16
	CHECK16 "far call", %edx, $0x77
	mov $scratch16, %bx
	movw $far16, (%bx)
	movw $0, 2(%bx)
	xor %edx, %edx
	lcall *(%bx)
	CHECK16 "far call through memory", %edx, $0x77
	# A far jump to another segment for the same place: base is selector * 16
	mov $4f - 0x100, %eax
	mov %ax, scratch16
	movw $0x10, scratch16 + 2
	ljmp *scratch16
4:	xor %eax, %eax
	mov %cs, %ax
	ljmp $0, $5f
5:	CHECK16 "CS of another value", %eax, $0x10
	# String instructions within 64 KiB
	xor %ax, %ax
	mov %ax, %es
	mov $0xfffe, %di
	mov $4, %cx
	cld
	mov $0x2000, %ax
	mov %ax, %es
	mov $0x5a, %al
	rep stosb
	movzwl %di, %eax
	CHECK16 "DI wraps", %eax, $2
	mov $0x2000, %ax
	mov %ax, %es
	movzwl %es:0xfffe, %eax
	CHECK16 "stored before the wrap", %eax, $0x5a5a
	movzwl %es:0, %eax
	CHECK16 "and behind it", %eax, $0x5a5a
	# REP with the count in CX alone
	mov $0x10002, %ecx
	mov $0x100, %di
	rep stosb
	CHECK16 "the count is CX", %ecx, $0x10000
	xor %ax, %ax
	mov %ax, %es
	# TF
	movw $step16, ivt + 1 * 4
	movw $0, steps16
	pushw $(FL_TF | 2)
	popfw
	nop
	nop
	pushw $2
	popfw
	movw $stubs16 + 8, ivt + 1 * 4
	movzwl steps16, %eax
	CHECK16 "single steps in real mode", %eax, $4
	jmp leave_real

unreal:
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	mov $DATA, %bx
	mov %bx, %ds
	mov %bx, %es
	and $~1, %al
	mov %eax, %cr0
	movl $0x1badb002, %ecx
	RUNS16 "unreal mode: offset above FFFFH", addr32 mov %ds:0x100000, %eax
	addr32 mov %ds:0x100000, %eax
	CHECK16 "what is there", %eax, %ecx
	# Loading a selector changes the base and keeps the limit
	mov $0x10, %bx
	mov %bx, %ds
	addr32 mov %ds:0xfff00, %eax
	CHECK16 "base of the new selector, old limit", %eax, %ecx
	xor %bx, %bx
	mov %bx, %ds
	mov %bx, %es
	FAULTS16 "FS has its 64-KiB limit", GP, addr32 mov %fs:0x10000, %al
	jmp leave_real

half:
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	# Protected mode now; CS, SS and DS still are what real mode left
	mov %cs, %ebx
	mov $0x1234, %cx
	mov %cx, scratch16
	mov scratch16, %dx
	and $~1, %al
	mov %eax, %cr0
	ljmp $0, $6f
6:	movzwl %dx, %edx
	CHECK16 "PE set and cleared without loading segments", %edx, $0x1234
	jmp leave_real

inside16:
	push %bp
	mov %sp, %bp
	pushf
	popw %cs:seen_flags
	push %ax
	mov 6(%bp), %ax
	mov %ax, %cs:seen_pushed
	pop %ax
	pop %bp
	iretw
step16:
	incw %cs:steps16
	iretw
far16:
	mov $0x77, %edx
	lretw

	.section .low.data, "aw"
	.balign 16
scratch16:	.fill 64, 1, 0
pointer16:	.fill 8, 1, 0
seen_flags:	.word 0
seen_pushed:	.word 0
steps16:	.word 0
