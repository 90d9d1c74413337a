# Exceptions of 64-bit mode: vector, error code, saved RIP of fault or trap, saved flags (SDM Vol. 3A 6.5, 6.13, 6.14, 6.15).

#include "kernel.inc"

	.code64
	.globl main
main:
	xor %edx, %edx
	xor %ecx, %ecx
	mov $7, %eax
	FAULTS "DIV by zero", DE, NONE, div %ecx
	CHECK "DIV left RAX", %rax, $7
	mov $0x80000000, %eax
	cltd
	mov $-1, %ecx
	FAULTS "IDIV overflow", DE, NONE, idiv %ecx
	mov $0x100, %eax
	mov $1, %ecx
	FAULTS "DIV overflow of 8 bits", DE, NONE, div %cl
	TRAPS "INT3", BP, NONE, int3
	TRAPS "INT 3", BP, NONE, int $3
	TRAPS "INT1 traps", DB, NONE, .byte 0xf1
	TRAPS "INT 4", OF, NONE, int $4
	TRAPS "INT 200", 200, NONE, int $200
	# INT n pushes no error code, whatever the vector (Vol. 3A 6.4.4); the lib's stub pops one for #GP
	GATE64 GP, 0x8e, CODE64, stub_without_code
	TRAPS "INT 13 pushes no error code", GP, 0x5a5a, int $13
	USUAL_GATE64 GP
	FAULTS "UD2", UD, NONE, ud2
	FAULTS "UD1", UD, NONE, ud1 %eax, %eax
	FAULTS "undefined opcode 0F 04", UD, NONE, .byte 0x0f, 0x04
	# Not in 64-bit mode (Vol. 2, "64-Bit Mode: Invalid")
	.irp opcode, 0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x62, 0x82, 0x9a, 0xc4, 0xc5, 0xce, 0xd4, 0xd5, 0xd6, 0xea
	.if \opcode != 0x62 && \opcode != 0xc4 && \opcode != 0xc5
	FAULTS "opcode \opcode in 64-bit mode", UD, NONE, .byte \opcode
	.endif
	.endr
	FAULTS "LEA of a register", UD, NONE, .byte 0x8d, 0xc0
	FAULTS "MOV to CS", UD, NONE, .byte 0x8e, 0xc8
	FAULTS "MOV from segment register 6", UD, NONE, .byte 0x8c, 0xf0
	FAULTS "MOV to CR1", UD, NONE, .byte 0x0f, 0x22, 0xc8
	FAULTS "MOV from CR5", UD, NONE, .byte 0x0f, 0x20, 0xe8
	FAULTS "RSM outside SMM", UD, NONE, rsm
	# Segment loads
	mov $0x1f8, %ecx
	FAULTS "selector of a descriptor that is no segment", GP, 0x1f8, mov %ecx, %ds
	mov $0x200, %ecx
	FAULTS "selector beyond the GDT", GP, 0x200, mov %ecx, %ds
	mov $0x20c, %ecx
	FAULTS "selector of an LDT that is not there", GP, 0x20c, mov %ecx, %es
	mov $TSS64, %ecx
	FAULTS "system segment into DS", GP, TSS64, mov %ecx, %ds
	mov $(TSS64 | 3), %ecx
	FAULTS "the error code has no RPL", GP, TSS64, mov %ecx, %ds
	DESCRIPTOR FREE, 0x00cf13000000ffff
	mov $FREE, %ecx
	FAULTS "data segment that is not present", NP, FREE, mov %ecx, %ds
	FAULTS "stack segment that is not present", SS_, FREE, mov %ecx, %ss
	mov $USER_DATA, %ecx
	FAULTS "stack segment of another level", GP, 0x38, mov %ecx, %ss
	mov $CODE64, %ecx
	FAULTS "code segment into SS", GP, CODE64, mov %ecx, %ss
	RUNS "readable code segment into DS", mov %ecx, %ds
	DESCRIPTOR FREE, 0x00af99000000ffff
	mov $FREE, %ecx
	FAULTS "execute-only code segment into DS", GP, FREE, mov %ecx, %ds
	DESCRIPTOR FREE, 0x00cf91000000ffff
	FAULTS "read-only data segment into SS", GP, FREE, mov %ecx, %ss
	RUNS "read-only data segment into ES", mov %ecx, %es
	xor %ecx, %ecx
	RUNS "null selector into DS", mov %ecx, %ds
	RUNS "null selector into SS at CPL 0 in 64-bit mode", mov %ecx, %ss
	mov $3, %ecx
	FAULTS "null selector with RPL 3 into SS at CPL 0", GP, 0, mov %ecx, %ss
	mov $DATA, %ecx
	mov %ecx, %ss
	mov %ecx, %ds
	mov %ecx, %es
	DESCRIPTOR FREE, 0x00cf92000000ffff
	mov $FREE, %ecx
	mov %ecx, %es
	CHECK "loading a segment sets its accessed bit", gdt + FREE, $0x00cf93000000ffff
	mov $DATA, %ecx
	mov %ecx, %es
	# Gates (Vol. 3A 6.13: error code vector * 8 + 2 + EXT)
	GATE64 200, 0x0e, CODE64, (stubs64 + 200 * 16)
	FAULTS "INT through a gate that is not present", NP, (200 * 8 + 2), int $200
	GATE64 200, 0x8c, CODE64, (stubs64 + 200 * 16)
	FAULTS "INT through a call gate", GP, (200 * 8 + 2), int $200
	GATE64 200, 0x85, TSS64, 0
	FAULTS "INT through a task gate in 64-bit mode", GP, (200 * 8 + 2), int $200
	GATE64 200, 0x86, CODE64, (stubs64 + 200 * 16)
	FAULTS "INT through a 16-bit gate in 64-bit mode", GP, (200 * 8 + 2), int $200
	GATE64 200, 0x8e, DATA, (stubs64 + 200 * 16)
	FAULTS "INT to a data segment", GP, DATA, int $200
	GATE64 200, 0x8e, 0, (stubs64 + 200 * 16)
	FAULTS "INT to the null selector", GP, 0, int $200
	GATE64 200, 0x8e, CODE32, (stubs64 + 200 * 16)
	FAULTS "INT to a 32-bit code segment", GP, CODE32, int $200
	GATE64 200, 0x8e, 0x40, (stubs64 + 200 * 16)
	FAULTS "INT to an outer level", GP, 0x40, int $200
	GATE64 200, 0x8e, 0x210, (stubs64 + 200 * 16)
	FAULTS "INT to a selector beyond the GDT", GP, 0x210, int $200
	DESCRIPTOR FREE, 0x00af1b000000ffff
	GATE64 200, 0x8e, FREE, (stubs64 + 200 * 16)
	FAULTS "INT to a code segment that is not present", NP, FREE, int $200
	GATE64 200, 0x8e, CODE64, (stubs64 + 200 * 16)
	movl $0x12345678, idt64 + 200 * 16 + 8
	FAULTS "INT to an address that is not canonical", GP, 0, int $200
	movl $0, idt64 + 200 * 16 + 8
	# The same for exceptions has EXT set; here #UD meets a gate that is not present
	andb $0x7f, idt64 + UD * 16 + 5
	FAULTS "#UD through a gate that is not present", NP, (UD * 8 + 3), ud2
	orb $0x80, idt64 + UD * 16 + 5
	andb $0x7f, idt64 + BP * 16 + 5
	FAULTS "INT3 through a gate that is not present", NP, (BP * 8 + 2), int3
	orb $0x80, idt64 + BP * 16 + 5
	# Beyond the IDT's limit
	movw $200 * 16 - 1, scratch
	movq $idt64, scratch + 2
	lidt scratch
	FAULTS "INT beyond the limit of the IDT", GP, (200 * 8 + 2), int $200
	movw $200 * 16 + 14, scratch
	lidt scratch
	FAULTS "INT whose gate ends beyond the limit", GP, (200 * 8 + 2), int $200
	movw $200 * 16 + 15, scratch
	lidt scratch
	TRAPS "INT with its gate just inside", 200, NONE, int $200
	lidt idt64_pointer
	# Gate DPL counts for INT n, INT3 and INTO, not for exceptions nor INT1 (Vol. 3A 6.12.1.2)
	USER_FAULTS "INT n at CPL 3 through a gate of DPL 0", GP, (200 * 8 + 2), int $200
	andb $~0x60, idt64 + BP * 16 + 5
	USER_FAULTS "INT3 at CPL 3 through a gate of DPL 0", GP, (BP * 8 + 2), int3
	orb $0x60, idt64 + BP * 16 + 5
	USER_FAULTS "#UD at CPL 3 through a gate of DPL 0", UD, NONE, ud2
	TRY
	ENTER_USER
	.byte 0xf1
8701:	nop
	LEAVE_USER
	END_TRY
	EXPECT "INT1 at CPL 3 through a gate of DPL 0", DB, NONE, 8701b
	CHECK "CS saved from CPL 3", fault_cs, $USER_CODE64
	CHECK "SS saved from CPL 3", fault_ss, $USER_DATA
	CHECK "RSP saved from CPL 3", fault_rsp, $user_stack_top
	CHECK "the handler's stack is RSP0", fault_frame_end, $ring0_stack_top

	# Frames are aligned to 16 bytes, from the same level too (Vol. 3A 6.14.2)
	TRY
	mov %rsp, %rbx
	and $-16, %rsp
	sub $8, %rsp
	mov %rsp, %rcx
	ud2
	END_TRY
	CHECK "RSP in the frame", fault_rsp, %rcx
	sub $8, %rcx
	CHECK "the frame is aligned", fault_frame_end, %rcx
	CHECK "SS in the frame", fault_ss, $DATA
	CHECK "CS in the frame", fault_cs, $CODE64

	# Flags: IF by the kind of gate; TF, NT, RF clear inside; RF set in the image of a fault (Vol. 3A 6.12.1.3; Vol. 3B 17.3.1.1)
	GATE64 200, 0x8e, CODE64, flags_inside
	GATE64 201, 0x8f, CODE64, flags_inside
	pushq $(FL_IF | FL_NT | FL_DF | 2)
	popfq
	int $200
	mov %rbx, %rcx
	and $(FL_IF | FL_NT | FL_DF | FL_RF | FL_TF), %ecx
	pushq $2
	popfq
	CHECK "flags inside an interrupt gate", %rcx, $FL_DF
	pushq $(FL_IF | 2)
	popfq
	int $201
	mov %rbx, %rcx
	cli
	and $(FL_IF | FL_NT | FL_DF | FL_RF | FL_TF), %ecx
	CHECK "flags inside a trap gate", %rcx, $FL_IF
	TRY
	stc
	ud2
	END_TRY
	mov fault_flags, %rax
	and $(FL_RF | FL_CF | FL_IF), %eax
	CHECK "RF and CF in the image of a fault", %rax, $(FL_RF | FL_CF)
	TRY
	int3
	END_TRY
	mov fault_flags, %rax
	and $FL_RF, %eax
	CHECK "no RF in the image of a trap", %rax, $0
	# A handler in a page that the image's RF has nothing to do with: IST switches stacks at the same level
	GATE64 UD, 0x8e, CODE64, (stubs64 + UD * 16), 1
	TRY
	ud2
	END_TRY
	CHECK "IST at the same level", fault_frame_end, $ist_stack_top
	TRY
	ENTER_USER
	ud2
	END_TRY
	CHECK "IST from CPL 3", fault_frame_end, $ist_stack_top
	USUAL_GATE64 UD
	# An IST entry that is not canonical: #SS(EXT); beyond the TSS limit: #TS
	GATE64 UD, 0x8e, CODE64, (stubs64 + UD * 16), 2
	movq $0, tss64 + 0x2c
	btsq $63, tss64 + 0x2c
	FAULTS "IST pointer that is not canonical", SS_, 1, ud2
	GATE64 200, 0x8e, CODE64, (stubs64 + 200 * 16), 2
	FAULTS "INT with an IST pointer that is not canonical", SS_, 0, int $200
	movq $0, tss64 + 0x2c
	USUAL_GATE64 UD
	GATE64 200, 0x8e, CODE64, (stubs64 + 200 * 16)
	# Interrupts through a conforming segment keep the level
	DESCRIPTOR FREE, 0x00af9f000000ffff
	GATE64 200, 0xee, FREE, conforming
	xor %ebx, %ebx
	TRY
	ENTER_USER
	int $200
	LEAVE_USER
	END_TRY
	CHECK "conforming handler runs at CPL 3", %rbx, $(FREE | 3)
	# RSP0 that is not canonical
	mov tss64 + 4, %rcx
	movq $0, tss64 + 4
	btsq $63, tss64 + 4
	GATE64 UD, 0x8e, CODE64, (stubs64 + UD * 16)
	GATE64 SS_, 0x8e, CODE64, (stubs64 + SS_ * 16), 1
	TRY
	ENTER_USER
8701:	ud2
	END_TRY
	EXPECT "RSP0 that is not canonical", SS_, 1, 8701b
	mov %rcx, tss64 + 4
	USUAL_GATE64 SS_
	USUAL_GATE64 UD
	USUAL_GATE64 200
	ret

stub_without_code:
	pushq $0x5a5a
	pushq $GP
	jmp common64

flags_inside:
	pushfq
	pop %rbx
	iretq

conforming:
	mov %cs, %ebx
	iretq
