# Segmentation of 32-bit protected mode: limits, expand-down segments, types, null selectors, stacks, code limits (SDM Vol. 3A 5.3, 5.4,
# 3.4.5; Vol. 2 faults of each instruction).

#include "kernel.inc"

#define SEL FREE
#define SEL2 (FREE + 8)

# A descriptor of base 0x200000, byte granularity: type and limit up to 64 KiB.
.macro SEGMENT selector:req, attributes:req, limit:req
	movl $((\limit) & 0xffff), gdt + (\selector)
	movl $(0x00400020 | (\attributes) << 8 | ((\limit) & 0xf0000)), gdt + (\selector) + 4
.endm
.macro LOAD_FS selector:req
	mov $\selector, %eax
	mov %eax, %fs
.endm

	.code32
	.globl main32
main32:
	mov $CR4_OSFXSR, %eax
	mov %eax, %cr4
	# A limit of 0xfff: offsets up to it, by all widths
	SEGMENT SEL, 0x93, 0xfff
	LOAD_FS SEL
	movl $0x11223344, 0x200ffc
	RUNS32 "last byte", mov %fs:0xfff, %al
	RUNS32 "last doubleword", mov %fs:0xffc, %eax
	CHECK32 "the base counts", %fs:0xffc, $0x11223344
	FAULTS32 "byte beyond the limit", GP, 0, mov %fs:0x1000, %al
	FAULTS32 "word across the limit", GP, 0, mov %fs:0xfff, %ax
	FAULTS32 "doubleword across the limit", GP, 0, mov %fs:0xffd, %eax
	FAULTS32 "store beyond the limit", GP, 0, mov %al, %fs:0x1000
	FAULTS32 "16 bytes across the limit", GP, 0, movups %fs:0xff1, %xmm0
	FAULTS32 "far beyond the limit", GP, 0, mov %fs:0xfffffff0, %al
	FAULTS32 "wrapping around 4 GiB", GP, 0, mov %fs:0xfffffffd, %eax
	FAULTS32 "x87 load across the limit", GP, 0, fldl %fs:0xff9
	mov $0x8000, %ecx
	FAULTS32 "BTS beyond the limit by its bit offset", GP, 0, bts %ecx, %fs:0
	RUNS32 "LEA checks nothing", .byte 0x64, 0x8d, 0x05, 0, 0x10, 0, 0
	# Page granularity
	movl $1, gdt + SEL

	mov $0x00c09320, %eax
	mov %eax, gdt + SEL + 4
	LOAD_FS SEL
	RUNS32 "limit of two pages", mov %fs:0x1fff, %al
	FAULTS32 "beyond two pages", GP, 0, mov %fs:0x2000, %al
	# Expand-down: offsets above the limit, up to FFFFH or FFFFFFFFH by B
	SEGMENT SEL, 0x97, 0xfff
	LOAD_FS SEL
	FAULTS32 "expand-down: at the limit", GP, 0, mov %fs:0xfff, %al
	FAULTS32 "expand-down: zero", GP, 0, mov %fs:0, %al
	RUNS32 "expand-down: above the limit", mov %fs:0x1000, %al
	RUNS32 "expand-down with B: far above", mov %fs:0x7ffff0, %al
	FAULTS32 "expand-down: doubleword from the limit", GP, 0, mov %fs:0xfff, %eax
	andl $~0x00400000, gdt + SEL + 4
	LOAD_FS SEL
	RUNS32 "expand-down without B: up to FFFFH", mov %fs:0xffff, %al
	FAULTS32 "expand-down without B: 10000H", GP, 0, mov %fs:0x10000, %al
	FAULTS32 "expand-down without B: word across FFFFH", GP, 0, mov %fs:0xffff, %ax
	# Types
	SEGMENT SEL, 0x91, 0xfff
	LOAD_FS SEL
	RUNS32 "read of read-only data", mov %fs:0, %al
	FAULTS32 "write to read-only data", GP, 0, mov %al, %fs:0
	FAULTS32 "read-modify-write of read-only data", GP, 0, incb %fs:0
	FAULTS32 "CMPXCHG of read-only data", GP, 0, cmpxchg %al, %fs:0
	RUNS32 "comparison with read-only data", cmpb $0, %fs:0
	SEGMENT SEL, 0x9b, 0xfff
	LOAD_FS SEL
	RUNS32 "read of readable code", mov %fs:0, %al
	FAULTS32 "write to code", GP, 0, mov %al, %fs:0
	FAULTS32 "write to CS", GP, 0, mov %al, %cs:scratch
	SEGMENT SEL, 0x99, 0xfff
	mov $SEL, %eax
	FAULTS32 "execute-only code into FS", GP, SEL, mov %eax, %fs
	FAULTS32 "that left FS as it was", GP, 0, mov %al, %fs:0
	# Null selectors: loading is allowed, using is not; SS may not be null
	xor %eax, %eax
	RUNS32 "null selector", mov %eax, %fs
	FAULTS32 "read through a null selector", GP, 0, mov %fs:0, %al
	mov $3, %eax
	RUNS32 "null selector with RPL 3", mov %eax, %fs
	FAULTS32 "write through a null selector", GP, 0, mov %al, %fs:scratch
	xor %eax, %eax
	FAULTS32 "null selector into SS", GP, 0, mov %eax, %ss
	# String instructions: ES for the destination whatever the prefix
	SEGMENT SEL, 0x91, 0xfff
	mov %es, %edx
	mov $SEL, %eax
	mov %eax, %es
	mov $0, %edi
	mov $4, %ecx
	FAULTS32 "REP STOSB to read-only ES", GP, 0, rep stosb
	CHECK32 "no round was done", %ecx, $4
	mov $0xffe, %edi
	SEGMENT SEL, 0x93, 0xfff
	mov $SEL, %eax
	mov %eax, %es
	FAULTS32 "REP STOSB across the limit", GP, 0, rep stosb
	CHECK32 "two rounds were done", %ecx, $2
	CHECK32 "EDI is at the limit", %edi, $0x1000
	mov %edx, %es
	# LDS, LES, LFS, LGS, LSS
	movl $0x5678, scratch
	movw $SEL, scratch + 4
	SEGMENT SEL, 0x93, 0xfff
	RUNS32 "LFS", lfs scratch, %ebx
	CHECK32 "its offset", %ebx, $0x5678
	mov %fs, %eax
	CHECK32 "its selector", %eax, $SEL
	movw $0x1f8, scratch + 4
	mov $0x99, %ebx
	FAULTS32 "LFS of a selector that is no segment", GP, 0x1f8, lfs scratch, %ebx
	CHECK32 "the register is kept", %ebx, $0x99
	# BOUND, INTO and other 32-bit instructions
	movl $5, scratch
	movl $10, scratch + 4
	mov $7, %eax
	RUNS32 "BOUND inside", bound %eax, scratch
	mov $11, %eax
	FAULTS32 "BOUND above", BR, NONE, bound %eax, scratch
	mov $4, %eax
	FAULTS32 "BOUND below", BR, NONE, bound %eax, scratch
	mov $0x7fffffff, %eax
	inc %eax
	TRAPS32 "INTO with OF", OF, NONE, into
	xor %eax, %eax
	RUNS32 "INTO without OF", into

	# Stacks: a 16-bit one keeps the upper half of ESP
	mov %esp, %ebp
	SEGMENT SEL, 0x93, 0xffff
	andl $~0x00400000, gdt + SEL + 4
	mov $SEL, %eax
	mov %eax, %ss
	mov $0x12340000, %esp
	pushw %ax
	mov %esp, %ecx
	mov $DATA, %eax
	mov %eax, %ss
	mov %ebp, %esp
	CHECK32 "SP wraps within a 16-bit stack", %ecx, $0x1234fffe
	mov $SEL, %eax
	TRY32
	mov %eax, %ss
	mov $0x12340000, %esp
	push %ebx
	pop %ecx
	mov %esp, %edx
	mov $DATA, %eax
	mov %eax, %ss
	mov %ebp, %esp
	END_TRY32
	CHECK32 "PUSH and POP around SP 0", fault_vector, $-1
	CHECK32 "SP is back", %edx, $0x12340000
	# Limit violations of the stack: #SS(0). The handler needs a stack: a task gate or an inner level, so these run at CPL 3
	SEGMENT SEL, 0xf3, 0xfff
	.macro STACK_AT name:req, esp:req, insn:vararg
	TRY32
	ENTER_USER32
	mov $(SEL | 3), %ecx
	mov %ecx, %ss
	mov $\esp, %esp
	mov $\esp, %ebp
8701:	\insn
	LEAVE_USER
	END_TRY32
	EXPECT32 "\name", SS_, 0, 8701b
	CHECK32 "\name: ESP", fault_rsp, $\esp
	.endm
	STACK_AT "PUSH beyond the limit", 0x2000, push %eax
	STACK_AT "PUSH that wraps below zero", 2, push %eax
	STACK_AT "POP beyond the limit", 0x1000, pop %eax
	STACK_AT "POP across the limit", 0xffe, pop %eax
	STACK_AT "CALL beyond the limit", 0x2000, call main32
	STACK_AT "RET beyond the limit", 0x1000, ret
	STACK_AT "load by EBP", 0x1000, mov (%ebp), %al
	STACK_AT "store by ESP", 0x1000, mov %al, (%esp)
	STACK_AT "load by EBP with a SIB byte", 0x1000, .byte 0x8a, 0x44, 0x25, 0
	STACK_AT "PUSHA beyond the limit", 0x2000, pusha
	STACK_AT "POPA beyond the limit", 0xff0, popa
	STACK_AT "LEAVE beyond the limit", 0x1000, leave
	STACK_AT "ENTER beyond the limit", 0x2000, enter $0, $0
	# An override away from SS gives #GP
	mov $0x1000, %ebx
	LOAD_FS SEL
	FAULTS32 "load by FS at the same place", GP, 0, mov %fs:(%ebx), %al

	# Code segments: fetches beyond the limit are #GP(0) at the instruction; jumps fault before they jump
	# (SEL: 32-bit code from 1 MiB on, with a limit just behind `last`)
	mov $last + 1 - 0x100000, %eax
	mov %ax, gdt + SEL
	movw $0, gdt + SEL + 2
	movw $0x9b10, gdt + SEL + 4
	movw $0x40, gdt + SEL + 6
	TRY32
	ljmp $SEL, $limited-0x100000
	END_TRY32
	EXPECT32 "running over the limit of CS", GP, 0, last+2-0x100000
	CHECK32 "what was before ran", %ebx, $2
	TRY32
	ljmp $SEL, $limited_jump-0x100000
	END_TRY32
	EXPECT32 "near jump beyond the limit", GP, 0, limited_jump-0x100000
	TRY32
	ljmp $SEL, $limited_call-0x100000
	END_TRY32
	EXPECT32 "near call beyond the limit", GP, 0, limited_call-0x100000
	TRY32
8701:	ljmp $SEL, $last + 2-0x100000
	END_TRY32
	EXPECT32 "far jump beyond the limit", GP, 0, 8701b
	# An instruction that crosses the limit
	mov $last - 0x100000, %eax
	mov %ax, gdt + SEL
	# The same code, hot under a segment without that limit
	mov $100, %edx
1:	call limited
	call hot_loop
	dec %edx
	jnz 1b
	TRY32
	ljmp $SEL, $limited-0x100000
	END_TRY32
	EXPECT32 "instruction across the limit of CS", GP, 0, last-0x100000
	CHECK32 "what was before it ran", %ebx, $1
	mov $hot_limit - 0x100000, %eax
	mov %ax, gdt + SEL
	mov $100, %ecx
	TRY32
	ljmp $SEL, $hot_loop_entry-0x100000
	END_TRY32
	EXPECT32 "loop across the limit of CS", GP, 0, hot_limit-0xfffff
	CHECK32 "in its first round", %ecx, $99
	# Another base for the same linear addresses: SEL2 begins later, so that its limit lies elsewhere
	call hot_loop
	movl gdt + SEL + 4, %eax
	mov %eax, gdt + SEL2 + 4
	mov $hot_limit - 0x100000, %eax
	mov %ax, gdt + SEL2
	movw $16, gdt + SEL2 + 2
	mov $100, %ecx
	TRY32
	ljmp $SEL2, $hot_loop_entry-0x100010
	END_TRY32
	CHECK32 "the same limit 16 bytes further on", fault_vector, $UD
	ret

hot_loop:
	mov $100, %ecx
	push %ecx
	pop %ecx
	jmp hot_loop_entry
	.balign 16
hot_loop_entry:
	dec %ecx
	jz 1f
	jmp 2f
	nop
2:	nop
hot_limit:
	nop
	nop
	jmp hot_loop_entry
1:	mov %cs, %eax
	cmp $CODE32, %eax
	jne 3f
	ret
3:	ud2

limited_jump:
	jmp beyond
limited_call:
	call beyond
limited:
	xor %ebx, %ebx
	inc %ebx
last:	.byte 0xff, 0xc3
	nop
beyond:	nop
	ret
