# IRET in 64-bit mode: operand sizes, levels, checks, flags (SDM Vol. 2A IRET; Vol. 3A 6.14.3).

#include "kernel.inc"

# An IRETQ frame and the IRETQ: checked as an instruction that faults.
.macro IRETQ_FAULTS name:req, vector:req, error:req, rip:req, cs:req, flags:req, rsp:req, ss:req
	TRY
	pushq $\ss
	movabs $\rsp, %rax
	push %rax
	pushq $\flags
	pushq $\cs
	movabs $\rip, %rax
	push %rax
8701:	iretq
	END_TRY
	EXPECT "\name", \vector, \error, 8701b
.endm

	.code64
	.globl main
main:
	# Same level: SS and RSP are popped
	mov %rsp, %rbx
	pushq $0
	pushq $stack_top-64
	pushq $(FL_CF | FL_DF | 2)
	pushq $CODE64
	pushq $1f
	iretq
1:	mov %rsp, %rcx
	pushfq
	pop %rdx
	mov %ss, %esi
	mov $DATA, %eax
	mov %eax, %ss
	mov %rbx, %rsp
	cld
	CHECK "RSP", %rcx, $stack_top-64
	CHECK "flags", %rdx, $(FL_CF | FL_DF | 2)
	CHECK "a null SS at CPL 0 in 64-bit mode", %rsi, $0
	# IRETD and IRETW in 64-bit mode
	mov %rsp, %rbx
	sub $20, %rsp
	movl $2f, (%rsp)
	movl $CODE64, 4(%rsp)
	movl $(FL_CF | 2), 8(%rsp)
	movl $stack_top - 128, 12(%rsp)
	movl $DATA, 16(%rsp)
	iretl
2:	mov %rsp, %rcx
	mov %rbx, %rsp
	CHECK "IRETD pops five doublewords", %rcx, $stack_top-128
	# To CPL 3, 64-bit, 32-bit
	TRY
	ENTER_USER
	mov %cs, %ebx
	mov %ss, %ecx
	LEAVE_USER
	END_TRY
	CHECK "CS at CPL 3", %rbx, $USER_CODE64
	CHECK "SS at CPL 3", %rcx, $USER_DATA
	mov $0x1122334455667788, %r12
	mov %rsp, user_return_rsp
	pushq $USER_DATA
	mov $0xabcdef00000000, %rax
	mov $user_stack_top, %ecx
	or %rcx, %rax
	push %rax
	pushq $0x3002
	pushq $USER_CODE32
	pushq $compatibility
	iretq
	.code32
compatibility:
	mov %cs, %ebx
	mov %esp, %ecx
	# INC r32 in its short form: REX in 64-bit mode
	xor %edi, %edi
	.byte 0x47
	LEAVE_USER
	.code64
	CHECK "CS of compatibility mode", %rbx, $USER_CODE32
	CHECK "ESP of compatibility mode", %rcx, $user_stack_top
	CHECK "32-bit decoding", %rdi, $1
	CHECK "R12 is kept", %r12, $0x1122334455667788
	# Data segments that the outer level may not use become null
	mov $DATA, %eax
	mov %eax, %ds
	mov $USER_DATA, %eax
	mov %eax, %es
	mov $0x10, %eax
	mov %eax, %fs
	ENTER_USER
	mov %ds, %ebx
	mov %es, %ecx
	mov %fs, %edx
	LEAVE_USER
	CHECK "DS of DPL 0 becomes null", %rbx, $0
	CHECK "ES of DPL 3 stays", %rcx, $USER_DATA
	CHECK "FS of DPL 0 becomes null", %rdx, $0
	mov $DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	# Checks
	IRETQ_FAULTS "null CS", GP, 0, main, 0, 2, stack_top, DATA
	IRETQ_FAULTS "null CS with RPL 3", GP, 0, main, 3, 2, stack_top, DATA
	IRETQ_FAULTS "CS is data", GP, DATA, main, DATA, 2, stack_top, DATA
	IRETQ_FAULTS "CS beyond the GDT", GP, 0x208, main, 0x208, 2, stack_top, DATA
	IRETQ_FAULTS "RPL other than DPL", GP, CODE64, main, (CODE64 | 3), 2, stack_top, DATA
	IRETQ_FAULTS "RIP that is not canonical", GP, 0, 0x8000000000000000, CODE64, 2, stack_top, DATA
	IRETQ_FAULTS "RIP that is not canonical, to CPL 3", GP, 0, 0x800000000000, USER_CODE64, 2, stack_top, USER_DATA
	IRETQ_FAULTS "null SS to CPL 3", GP, 0, main, USER_CODE64, 2, stack_top, 0
	IRETQ_FAULTS "null SS with RPL 3 to CPL 3", GP, 0, main, USER_CODE64, 2, stack_top, 3
	IRETQ_FAULTS "null SS to compatibility mode", GP, 0, main, CODE32, 2, stack_top, 0
	IRETQ_FAULTS "SS of DPL 0 to CPL 3", GP, DATA, main, USER_CODE64, 2, stack_top, DATA
	IRETQ_FAULTS "SS is code", GP, 0x40, main, USER_CODE64, 2, stack_top, USER_CODE64
	IRETQ_FAULTS "SS beyond the GDT", GP, 0x208, main, USER_CODE64, 2, stack_top, 0x20b
	IRETQ_FAULTS "RIP beyond the limit of compatibility mode", GP, 0, 0x100000000, USER_CODE32, 2, stack_top, USER_DATA
	DESCRIPTOR FREE, 0x00af1b000000ffff
	IRETQ_FAULTS "CS that is not present", NP, FREE, main, FREE, 2, stack_top, DATA
	DESCRIPTOR FREE, 0x00cf73000000ffff
	IRETQ_FAULTS "SS that is not present", SS_, FREE, main, USER_CODE64, 2, stack_top, (FREE | 3)
	DESCRIPTOR FREE, 0x00ef9b000000ffff
	IRETQ_FAULTS "CS with L and D", GP, FREE, main, FREE, 2, stack_top, DATA
	# NT
	pushq $(FL_NT | 2)
	popfq
	IRETQ_FAULTS "IRET with NT in IA-32e mode", GP, 0, main, CODE64, 2, stack_top, DATA
	pushq $2
	popfq
	# At CPL 3 IRET can't change IOPL, nor IF without IOPL, nor return inwards
	ENTER_USER 2
	pushq $USER_DATA
	pushq $user_stack_top
	pushq $(0x3000 | FL_IF | FL_CF | FL_AC | 2)
	pushq $USER_CODE64
	pushq $3f
	iretq
3:	pushfq
	pop %rbx
	LEAVE_USER
	CHECK "IRET at CPL 3 keeps IOPL and IF", %rbx, $(FL_CF | FL_AC | 2)
	TRY
	ENTER_USER
	pushq $DATA
	pushq $user_stack_top
	pushq $2
	pushq $CODE64
	pushq $main
8701:	iretq
	END_TRY
	EXPECT "IRET inwards", GP, CODE64, 8701b
	# VM is ignored in IA-32e mode; the reserved bits stay as they are
	mov %rsp, %rbx
	pushq $DATA
	push %rbx
	pushq $(FL_VM | 0x28 | 0x8000 | 2)
	pushq $CODE64
	pushq $4f
	iretq
4:	pushfq
	pop %rdx
	CHECK "VM and reserved bits", %rdx, $2

	# POPF (Vol. 2B): what each level may change
	pushq $(0x3000 | FL_NT | FL_ID | FL_AC | FL_IF | FL_VM | FL_RF | FL_VIP | FL_VIF | 2)
	popfq
	pushfq
	pop %rdx
	cli
	pushq $2
	popfq
	CHECK "POPF at CPL 0: not VM, RF, VIP, VIF", %rdx, $(0x3000 | FL_NT | FL_ID | FL_AC | FL_IF | 2)
	ENTER_USER 2
	pushq $(0x3000 | FL_NT | FL_ID | FL_AC | FL_IF | 2)
	popfq
	pushfq
	pop %rdx
	pushq $2
	popfq
	LEAVE_USER
	CHECK "POPF at CPL 3 with IOPL 0: not IOPL, IF", %rdx, $(FL_NT | FL_ID | FL_AC | 2)
	ENTER_USER 0x3002
	pushq $(FL_IF | 2)
	popfq
	pushfq
	pop %rdx
	LEAVE_USER
	CHECK "POPF at CPL 3 with IOPL 3: IF, not IOPL", %rdx, $(0x3000 | FL_IF | 2)
	USER_FAULTS "HLT at CPL 3", GP, 0, hlt
	TRY
	ENTER_USER 2
8701:	cli
	LEAVE_USER
	END_TRY
	EXPECT "CLI at CPL 3 with IOPL 0", GP, 0, 8701b
	TRY
	ENTER_USER 2
8701:	sti
	LEAVE_USER
	END_TRY
	EXPECT "STI at CPL 3 with IOPL 0", GP, 0, 8701b
	USER_RUNS "CLI at CPL 3 with IOPL 3", cli
	ret
