# Debug exceptions: single-step (SDM Vol. 3B 17.3.1.4), RF, the shadow of MOV SS (Vol. 3A 6.8.3), DR6 and DR7 (17.2).

#include "kernel.inc"

# Runs the code that follows with TF set; each #DB is written down. Ended by STEP_END.
.macro STEP
	movq $0, steps
	pushfq
	orl $FL_TF, (%rsp)
	popfq
.endm
.macro STEP_END
	pushfq
	andl $~FL_TF, (%rsp)
	popfq
.endm
.macro STEPPED name:req, n:req, rip:req
	CHECK "\name", step_rips+(\n)*8, $\rip
.endm

	.code64
	.globl main
main:
	GATE64 DB, 0x8e, CODE64, step
	xor %eax, %eax
	mov %rax, %dr7
	STEP
1:	nop
2:	inc %eax
3:	STEP_END
	CHECK "steps: two instructions and three of the end", steps, $5
	STEPPED "first step is behind the first instruction", 0, 2b
	STEPPED "second step", 1, 3b
	mov step_dr6, %rax
	and $0x4000, %eax
	CHECK "DR6.BS", %rax, $0x4000
	mov step_flags, %rax
	and $(FL_TF | FL_RF), %eax
	CHECK "TF in the image, RF not", %rax, $FL_TF

	# Jumps and calls trap at their targets
	STEP
	jmp 4f
	nop
4:	STEP_END
	STEPPED "a jump traps at its target", 0, 4b
	STEP
	call function
5:	STEP_END
	STEPPED "a call traps at its target", 0, function
	STEPPED "a return too", 1, 5b
	# A repeated string instruction traps after each round
	mov $scratch, %edi
	mov $3, %ecx
	STEP
6:	rep stosb
7:	STEP_END
	STEPPED "first round of REP STOSB", 0, 6b
	STEPPED "second round", 1, 6b
	STEPPED "last round", 2, 7b
	CHECK "count after it", %rcx, $0
	# A count of zero is one step
	STEP
	rep stosb
8:	STEP_END
	STEPPED "REP with a count of zero", 0, 8b
	# MOV SS holds the trap back by one instruction; the trap is lost for MOV SS itself
	mov $DATA, %edx
	STEP
	mov %edx, %ss
9:	nop
10:	nop
	STEP_END
	STEPPED "MOV SS is not stepped", 0, 10b
	# Neither is the instruction behind POPF that sets TF missed, nor the one that clears it
	movq $0, steps
	pushfq
	pushfq
	orl $FL_TF, (%rsp)
	popfq
11:	popfq
12:	nop
	CHECK "POPF that sets and POPF that clears TF: one step", steps, $1
	STEPPED "behind the second POPF", 0, 12b
	# An instruction that faults is not stepped; the handler runs with TF clear
	STEP
	TRY
13:	ud2
	END_TRY
	CHECK "steps before the fault only", steps, $3
	mov fault_flags, %rax
	and $(FL_TF | FL_RF), %eax
	CHECK "image of a fault under TF", %rax, $(FL_TF | FL_RF)
	# INT n clears TF: no step inside the handler nor behind INT; IRET brings TF back, with a step behind the next instruction
	GATE64 200, 0x8e, CODE64, just_return
	STEP
	int $200
14:	nop
15:	STEP_END
	STEPPED "after INT and its IRET the next instruction runs", 0, 15b
	# IRET that sets TF: the step comes behind the instruction returned to
	movq $0, steps
	mov %rsp, %rax
	pushq $DATA
	push %rax
	pushq $(FL_TF | 2)
	pushq $CODE64
	pushq $16f
	iretq
16:	nop
17:	STEP_END
	STEPPED "IRET that sets TF", 0, 17b
	# CPL 3
	movq $0, steps
	ENTER_USER 0x3102
18:	nop
19:	nop
	LEAVE_USER
	STEPPED "step at CPL 3", 0, 19b
	CHECK "TF survived into CPL 0's handler only", steps, $2
	# INT1 leaves DR6.BS alone
	xor %eax, %eax
	mov %rax, %dr6
	movq $0, steps
	.byte 0xf1
20:	STEPPED "INT1", 0, 20b
	mov step_dr6, %rax
	and $0x4000, %eax
	CHECK "INT1 does not set DR6.BS", %rax, $0
	USUAL_GATE64 DB

	# Reserved bits of DR6 and DR7 (17.2.3, 17.2.4)
	mov $0xffff0ff0, %eax
	mov %rax, %dr6
	mov %dr6, %rcx
	CHECK "DR6 reads its fixed ones", %rcx, $0xffff0ff0
	xor %eax, %eax
	mov %rax, %dr6
	mov %dr6, %rcx
	CHECK "DR6 written as zero", %rcx, $0xffff0ff0
	mov $0xe00f, %eax
	mov %rax, %dr6
	mov %dr6, %rcx
	CHECK "DR6 keeps B0 to B3, BD, BS and BT", %rcx, $0xffffefff
	xor %eax, %eax
	mov %rax, %dr7
	mov %dr7, %rcx
	CHECK "DR7 bit 10 reads as one", %rcx, $0x400
	mov $0x100000000, %rax
	FAULTS "DR7 bits above 31", GP, 0, mov %rax, %dr7
	FAULTS "DR6 bits above 31", GP, 0, mov %rax, %dr6
	mov $0x123456789abc, %rax
	mov %rax, %dr0
	mov %dr0, %rcx
	CHECK "DR0 is 64 bits wide", %rcx, $0x123456789abc
	# DR4 and DR5 are DR6 and DR7, or undefined with CR4.DE (17.2.2)
	mov $0x400, %eax
	RUNS "DR5 is DR7 without CR4.DE", .byte 0x0f, 0x21, 0xe9
	CHECK "its value", %rcx, $0x400
	OR_CR cr4, CR4_DE
	FAULTS "DR5 with CR4.DE", UD, NONE, .byte 0x0f, 0x21, 0xe9
	FAULTS "DR4 with CR4.DE", UD, NONE, .byte 0x0f, 0x23, 0xe0
	CLEAR_CR cr4, CR4_DE
	USER_FAULTS "MOV from DR0 at CPL 3", GP, 0, mov %dr0, %rax
	USER_FAULTS "MOV to DR7 at CPL 3", GP, 0, mov %rax, %dr7
	# DR7.GD: an access to a debug register is a fault, and the handler may access them (17.2.4)
	mov $0x2400, %eax
	mov %rax, %dr7
	FAULTS "MOV from DR7 with GD", DB, NONE, mov %dr7, %rax
	mov %dr6, %rax
	and $0x2000, %eax
	CHECK "DR6.BD", %rax, $0x2000
	mov %dr7, %rax
	CHECK "GD is clear in the handler", %rax, $0x400

	# Instruction and data breakpoints (17.3.1)
	mov $breakpoint, %eax
	mov %rax, %dr0
	xor %eax, %eax
	mov %rax, %dr6
	mov $0x402, %eax
	mov %rax, %dr7
	TRY
	call function
breakpoint:
	nop
	END_TRY
	EXPECT "instruction breakpoint", DB, NONE, breakpoint
	mov %dr6, %rax
	and $0xf, %eax
	CHECK "DR6.B0", %rax, $1
	mov fault_flags, %rax
	and $FL_RF, %eax
	CHECK "RF in the image of an instruction breakpoint is what it was", %rax, $0
	# IRET with RF set passes it
	TRY
	mov %rsp, %rax
	pushq $DATA
	push %rax
	pushq $(FL_RF | 2)
	pushq $CODE64
	pushq $breakpoint2
	mov $breakpoint2, %ecx
	mov %rcx, %dr0
	iretq
breakpoint2:
	nop
	END_TRY
	CHECK "RF suppresses it for one instruction", fault_vector, $-1
	mov $scratch + 8, %eax
	mov %rax, %dr1
	xor %eax, %eax
	mov %rax, %dr6
	# R/W1 = 01 (writes), LEN1 = 11 (4 bytes), G1
	mov $0x00d00408, %eax
	mov %rax, %dr7
	RUNS "a read does not hit a write breakpoint", mov scratch + 8, %eax
	TRAPS "data write breakpoint", DB, NONE, movb $1, scratch + 11
	mov %dr6, %rax
	and $0xf, %eax
	CHECK "DR6.B1", %rax, $2
	RUNS "a write beside it", movb $1, scratch + 12
	mov $0x00f00408, %eax
	mov %rax, %dr7
	TRAPS "data access breakpoint on a read", DB, NONE, mov scratch + 8, %eax
	mov $0x400, %eax
	mov %rax, %dr7
	RUNS "disabled", movb $1, scratch + 11
	ret

function:
	ret
just_return:
	iretq

step:	push %rax
	push %rcx
	mov steps, %ecx
	mov 16(%rsp), %rax
	mov %rax, step_rips(, %rcx, 8)
	incq steps
	test %ecx, %ecx
	jnz 1f
	mov 32(%rsp), %rax
	mov %rax, step_flags
1:
	mov %dr6, %rax
	mov %rax, step_dr6
	pop %rcx
	pop %rax
	iretq

	.data
	.balign 8
steps:	.quad 0
step_flags:	.quad 0
step_dr6:	.quad 0
step_rips:	.fill 100, 8, 0
