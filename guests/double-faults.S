# Exceptions during the delivery of exceptions (SDM Vol. 3A 6.15 #DF, table 6-5).

#include "kernel.inc"

	.code64
	.globl main
main:
	# Contributory and contributory: #DF with error code 0. #GP is delivered through a gate that is not present.
	andb $0x7f, idt64 + GP * 16 + 5
	mov $0x1f8, %ecx
	FAULTS "#NP while #GP is delivered", DF, 0, mov %ecx, %ds
	FAULTS "privileged instruction, the same", DF, 0, mov %rcx, %cr8
	andb $0x7f, idt64 + DE * 16 + 5
	xor %ecx, %ecx
	FAULTS "#NP while #DE is delivered", DF, 0, div %ecx
	orb $0x80, idt64 + DE * 16 + 5
	orb $0x80, idt64 + GP * 16 + 5
	# Benign and contributory: the second alone
	andb $0x7f, idt64 + UD * 16 + 5
	FAULTS "#NP while #UD is delivered", NP, (UD * 8 + 3), ud2
	orb $0x80, idt64 + UD * 16 + 5
	andb $0x7f, idt64 + DB * 16 + 5
	FAULTS "#NP while INT1 is delivered", NP, (DB * 8 + 3), .byte 0xf1
	orb $0x80, idt64 + DB * 16 + 5
	# Page fault and contributory, page fault and page fault
	andb $0x7f, idt64 + PF * 16 + 5
	FAULTS "#NP while #PF is delivered", DF, 0, mov TEST, %al
	CHECK "CR2 of the page fault", fault_cr2, $TEST
	orb $0x80, idt64 + PF * 16 + 5
	GATE64 DF, 0x8e, CODE64, (stubs64 + DF * 16), 1
	TRY
	mov $TEST + 0x2000, %esp
8701:	push %rax
	END_TRY
	EXPECT "page fault on a stack that is not present", DF, 0, 8701b
	CHECK "CR2 is that of the second page fault", fault_cr2, $(TEST + 0x2000 - 8)
	CHECK "RSP of the instruction", fault_rsp, $(TEST + 0x2000)
	# Benign and page fault: the page fault, with its IST stack
	GATE64 PF, 0x8e, CODE64, (stubs64 + PF * 16), 1
	TRY
	mov $TEST + 0x2000, %esp
8701:	ud2
	END_TRY
	EXPECT "#PF while #UD is delivered", PF, 2, 8701b
	CHECK "CR2 of the stack", fault_cr2, $(TEST + 0x2000 - 8)
	# Contributory and page fault: the page fault (table 6-5)
	TRY
	mov $TEST + 0x2000, %esp
	mov $0x1f8, %ecx
8701:	mov %ecx, %ds
	END_TRY
	EXPECT "#PF while #GP is delivered", PF, 2, 8701b
	# Page fault, then #GP from a gate to nowhere
	GATE64 PF, 0x8e, DATA, (stubs64 + PF * 16)
	FAULTS "#GP while #PF is delivered", DF, 0, mov TEST, %al
	USUAL_GATE64 PF
	# INT n is no exception: what its delivery raises stands alone
	andb $0x7f, idt64 + GP * 16 + 5
	andb $0x7f, idt64 + 200 * 16 + 5
	FAULTS "INT through a gate that is not present, while #GP's is not", NP, (200 * 8 + 2), int $200
	orb $0x80, idt64 + GP * 16 + 5
	orb $0x80, idt64 + 200 * 16 + 5
	# A non-canonical stack pointer: #SS is contributory
	GATE64 SS_, 0x8e, CODE64, (stubs64 + SS_ * 16), 1
	TRY
	mov $0x8000000000000000, %rsp
8701:	ud2
	END_TRY
	EXPECT "#SS while #UD is delivered", SS_, 1, 8701b
	TRY
	mov $0x8000000000000000, %rsp
	mov $0x1f8, %ecx
8701:	mov %ecx, %ds
	END_TRY
	EXPECT "#SS while #GP is delivered", DF, 0, 8701b
	USUAL_GATE64 SS_
	# From CPL 3 with an IDT that is not there: #DF as well needs the IDT, see triple-fault.S
	ret
