# Addresses that are not canonical: #GP, or #SS through SS (SDM Vol. 1 3.3.7.1; Vol. 3A 6.15 #GP, #SS), at both ends of the hole.

#include "kernel.inc"

	.code64
	.globl main
main:
	mov $0x800000000000, %rbx
	mov $0xffff7fffffffffff, %r8
	.irp base, rbx, r8
	FAULTS "load from \base", GP, 0, mov (%\base), %al
	FAULTS "store to \base", GP, 0, mov %al, (%\base)
	FAULTS "read-modify-write of \base", GP, 0, incb (%\base)
	FAULTS "16-byte load from \base", GP, 0, movups (%\base), %xmm0
	FAULTS "16-byte store to \base", GP, 0, movups %xmm0, (%\base)
	FAULTS "call through \base", GP, 0, call *(%\base)
	FAULTS "LGDT from \base", GP, 0, lgdt (%\base)
	FAULTS "FXSAVE to \base", GP, 0, fxsave (%\base)
	FAULTS "x87 load from \base", GP, 0, fldl (%\base)
	FAULTS "CMPXCHG on \base", GP, 0, cmpxchg %ecx, (%\base)
	FAULTS "PUSH from \base", GP, 0, push (%\base)
	FAULTS "CLFLUSH of \base", GP, 0, clflush (%\base)
	RUNS "prefetch of \base", prefetchnta (%\base)
	RUNS "LEA of \base", lea (%\base), %rax
	mov %\base, %rsi
	FAULTS "LODS from \base", GP, 0, lodsb
	mov %\base, %rdi
	FAULTS "STOS to \base", GP, 0, stosb
	FAULTS "SCAS of \base", GP, 0, scasb
	mov $2, %ecx
	FAULTS "REP MOVS from \base", GP, 0, rep movsb
	CHECK "rounds left of \base", %rcx, $2
	.endr
	# Accesses that reach into the hole: the last byte counts
	mov $0x7ffffffffffd, %rbx
	FAULTS "load that ends in the hole", GP, 0, mov (%rbx), %eax
	FAULTS "store that ends in the hole", GP, 0, mov %eax, (%rbx)
	FAULTS "canonical up to the hole: a page fault", PF, 0, mov (%rbx), %al
	mov $0xffff800000000000, %rbx
	FAULTS "canonical behind the hole: a page fault", PF, 0, mov (%rbx), %al
	FAULTS "load that begins in the hole", GP, 0, mov -1(%rbx), %eax
	# By sums of base, index and displacement
	mov $0x7fffffffffff, %rbx
	mov $1, %ecx
	FAULTS "sum that is not canonical", GP, 0, mov (%rbx, %rcx), %al
	mov $0x800000000000, %rbx
	mov $-0x800000000000, %rcx
	add $scratch, %rcx
	RUNS "sum that is canonical", mov (%rbx, %rcx), %al
	# Through SS: RSP and RBP as base
	mov %rsp, %r9
	GATE64 SS_, 0x8e, CODE64, (stubs64 + SS_ * 16), 1
	GATE64 GP, 0x8e, CODE64, (stubs64 + GP * 16), 1
	mov $0x800000000000, %rbp
	FAULTS "load by RBP", SS_, 0, mov (%rbp), %al
	FAULTS "store by RBP", SS_, 0, mov %al, 8(%rbp)
	FAULTS "read-modify-write by RBP", SS_, 0, addl $1, (%rbp)
	xor %edi, %edi
	FAULTS "RBP as index", GP, 0, mov (%rdi, %rbp), %al
	FAULTS "LEAVE", SS_, 0, leave
	CHECK "RBP behind LEAVE", %rbp, $0x800000000000
	.macro STACK_FAULTS name:req, insn:vararg
	TRY
	mov $0x800000000000, %rsp
8701:	\insn
	END_TRY
	EXPECT "\name", SS_, 0, 8701b
	CHECK "\name: RSP", fault_rsp, $0x800000000000
	.endm
	STACK_FAULTS "POP", pop %rax
	STACK_FAULTS "RET", ret
	STACK_FAULTS "POPF", popfq
	STACK_FAULTS "IRET", iretq
	STACK_FAULTS "far RET", rex.w lret
	STACK_FAULTS "load by RSP", mov (%rsp), %al
	STACK_FAULTS "store by RSP", mov %rax, 16(%rsp)
	TRY
	mov $0xffff800000000000, %rsp
8701:	push %rax
	END_TRY
	EXPECT "PUSH", SS_, 0, 8701b
	mov $main, %eax
	TRY
	mov $0xffff800000000000, %rsp
8701:	call *%rax
	END_TRY
	EXPECT "CALL", SS_, 0, 8701b
	USUAL_GATE64 SS_
	USUAL_GATE64 GP
	mov %r9, %rsp
	# FS and GS overrides: #GP; their bases count
	mov $0x800000000000, %rbx
	FAULTS "load by FS", GP, 0, mov %fs:(%rbx), %al
	FAULTS "load by RBP with an FS override", GP, 0, mov %fs:(%rbp), %al
	SET_MSR 0xc0000101, 0x7fffffffffff
	FAULTS "GS base plus one", GP, 0, mov %gs:1, %al
	SET_MSR 0xc0000101, 0
	# SS, DS and ES overrides change nothing but are allowed (Vol. 1 3.3.7.1 speaks of the default segment)
	# Branches: the fault is the branch's, RIP and RSP as before
	mov $0x800000000000, %rbx
	FAULTS "JMP to an address that is not canonical", GP, 0, jmp *%rbx
	FAULTS "CALL to an address that is not canonical", GP, 0, call *%rbx
	mov %rsp, %rcx
	CHECK "RSP behind that CALL", fault_rsp, %rcx
	mov %rbx, scratch
	FAULTS "JMP through memory", GP, 0, jmp *scratch
	TRY
	push %rbx
8701:	ret
	END_TRY
	EXPECT "RET to an address that is not canonical", GP, 0, 8701b
	TRY
	push %rbx
8701:	ret $8
	END_TRY
	EXPECT "RET with a count to an address that is not canonical", GP, 0, 8701b
	# Falling off the end of the lower half
	movl $(test_pd + (P | W | U)), scratch + 0x1000 + 511 * 8
	movl $(scratch + 0x1000 + (P | W | U)), pml4 + 255 * 8
	movl $(test_pt + (P | W | U)), test_pd + 511 * 8
	movl $(test_pages + (P | W | U)), test_pt + 511 * 8
	mov %cr3, %rax
	mov %rax, %cr3
	movl $0x90909090, test_pages + 0xffc
	mov $0x7ffffffffffc, %rbx
	TRY
	jmp *%rbx
	END_TRY
	mov fault_vector, %rax
	CHECK "running off the lower half", %rax, $GP
	mov fault_rip, %rax
	mov $0x800000000000, %rbx
	CHECK "RIP is the first address that is not canonical", %rax, %rbx
	# A relative jump over the end: EB 10
	movw $0x10eb, test_pages + 0xffc
	mov $0x7ffffffffffc, %rbx
	TRY
	jmp *%rbx
	END_TRY
	CHECK "relative jump over the end", fault_vector, $GP
	CHECK "faults at the jump", fault_rip, %rbx
	movq $0, pml4 + 255 * 8
	movq $0, test_pd + 511 * 8
	ret
