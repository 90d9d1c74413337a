# LAR, LSL, VERR, VERW, ARPL (SDM Vol. 2A, 2B), LLDT and LTR, SLDT and STR, LDT segments; in 64-bit mode.

#include "kernel.inc"

# ZF and the result (bits 19:16 of LAR are undefined) of LAR or LSL of a selector.
.macro LAR_IS name:req, selector:req, want:req
	mov $\selector, %ecx
	mov $0x5555, %eax
	lar %ecx, %eax
	setz %bl
	and $0xfff0ffff, %eax
	movzbl %bl, %ebx
	CHECK "LAR of \name: ZF", %rbx, $1
	CHECK "LAR of \name", %rax, $\want
.endm
.macro LSL_IS name:req, selector:req, want:req
	mov $\selector, %ecx
	mov $0x5555, %eax
	lsl %ecx, %eax
	setz %bl
	movzbl %bl, %ebx
	CHECK "LSL of \name: ZF", %rbx, $1
	CHECK "LSL of \name", %rax, $\want
.endm
.macro REFUSED name:req, instruction:req, selector:req
	mov $\selector, %ecx
	mov $0x5555, %eax
	\instruction %ecx, %eax
	setz %bl
	movzbl %bl, %ebx
	CHECK "\instruction of \name: ZF", %rbx, $0
	CHECK "\instruction of \name leaves the register", %rax, $0x5555
.endm
.macro VERIFIES name:req, instruction:req, selector:req, want:req
	mov $\selector, %ecx
	\instruction %cx
	setz %bl
	movzbl %bl, %ebx
	CHECK "\instruction of \name", %rbx, $\want
.endm

	.code64
	.globl main
main:
	LAR_IS "64-bit code", CODE64, 0x00a09b00
	LAR_IS "data", DATA, 0x00c09300
	LAR_IS "user data with RPL 3", USER_DATA, 0x00c0f300
	LAR_IS "16-bit data", DATA16, 0x00009300
	LAR_IS "busy TSS", TSS64, 0x00008b00
	REFUSED "the null selector", lar, 0
	REFUSED "a descriptor of type 0", lar, 0x1f8
	REFUSED "a selector beyond the GDT", lar, 0x200
	REFUSED "a selector of an LDT that is not there", lar, 0x0c
	REFUSED "DPL below RPL", lar, (DATA | 3)
	LSL_IS "4-GByte data", DATA, 0xffffffff
	LSL_IS "16-bit data", DATA16, 0xffff
	LSL_IS "the TSS", TSS64, 0x67
	REFUSED "the null selector", lsl, 0
	REFUSED "DPL below RPL", lsl, (DATA | 3)
	# Gates have access rights but no limit; interrupt gates neither (Vol. 2A tables of LAR and LSL). In IA-32e mode 16-bit and task gates have none.
	DESCRIPTOR FREE, 0x00008c0000080000
	DESCRIPTOR (FREE + 8), 0
	LAR_IS "a call gate", FREE, 0x00008c00
	REFUSED "a call gate", lsl, FREE
	DESCRIPTOR FREE, 0x00008e0000080000
	REFUSED "an interrupt gate", lar, FREE
	DESCRIPTOR FREE, 0x0000840000080000
	REFUSED "a 16-bit call gate in IA-32e mode", lar, FREE
	DESCRIPTOR FREE, 0x0000850000480000
	REFUSED "a task gate in IA-32e mode", lar, FREE
	DESCRIPTOR FREE, 0x0000820000000fff
	LAR_IS "an LDT", FREE, 0x00008200
	LSL_IS "an LDT", FREE, 0xfff
	# Not present makes no difference to LAR
	DESCRIPTOR FREE, 0x00cf13000000ffff
	LAR_IS "a segment that is not present", FREE, 0x00c01300
	# Conforming code is visible at any RPL
	DESCRIPTOR FREE, 0x00af9f000000ffff
	LAR_IS "conforming code with RPL 3", (FREE | 3), 0x00a09f00
	# Bits of the granularity nibble and the limit: granularity of pages fills the low 12 bits
	DESCRIPTOR FREE, 0x00c0930000000001
	LSL_IS "two pages", FREE, 0x1fff
	# Operand sizes: 16 bits of LAR are bits 15:8 of the descriptor's second doubleword
	mov $DATA, %ecx
	mov $-1, %rax
	lar %cx, %ax
	CHECK "LAR with 16 bits", %rax, $0xffffffffffff9300
	mov $-1, %rax
	.byte 0x48, 0x0f, 0x02, 0xc1
	and $0xfff0ffff, %eax
	CHECK "LAR with 64 bits", %rax, $0x00c09300
	movw $DATA, scratch
	mov $-1, %rax
	lsl scratch, %eax
	CHECK "LSL from memory", %rax, $0xffffffff

	VERIFIES "data", verr, DATA, 1
	VERIFIES "data", verw, DATA, 1
	VERIFIES "the null selector", verr, 0, 0
	VERIFIES "the null selector", verw, 0, 0
	VERIFIES "data with RPL 3", verr, (DATA | 3), 0
	VERIFIES "user data with RPL 3", verw, USER_DATA, 1
	VERIFIES "readable code", verr, CODE64, 1
	VERIFIES "readable code", verw, CODE64, 0
	VERIFIES "a TSS", verr, TSS64, 0
	DESCRIPTOR FREE, 0x00cf91000000ffff
	VERIFIES "read-only data", verr, FREE, 1
	VERIFIES "read-only data", verw, FREE, 0
	DESCRIPTOR FREE, 0x00af99000000ffff
	VERIFIES "execute-only code", verr, FREE, 0
	DESCRIPTOR FREE, 0x00af9f000000ffff
	VERIFIES "conforming code with RPL 3", verr, (FREE | 3), 1
	# They do not set the accessed bit
	DESCRIPTOR FREE, 0x00cf92000000ffff
	VERIFIES "data that was not accessed", verw, FREE, 1
	CHECK "VERW leaves the accessed bit", gdt + FREE, $0x00cf92000000ffff
	# At CPL 3
	ENTER_USER
	mov $DATA, %ecx
	verr %cx
	setz %bl
	mov $USER_DATA, %ecx
	verr %cx
	setz %al
	LEAVE_USER
	movzbl %bl, %ebx
	movzbl %al, %eax
	CHECK "VERR of DPL 0 at CPL 3", %rbx, $0
	CHECK "VERR of DPL 3 at CPL 3", %rax, $1

	# LLDT, SLDT, segments of the LDT
	DESCRIPTOR FREE, 0x0000820000000017
	mov $scratch, %eax
	mov %ax, gdt + FREE + 2
	shr $16, %eax
	mov %al, gdt + FREE + 4
	mov %ah, gdt + FREE + 7
	DESCRIPTOR (FREE + 8), 0
	mov gdt + DATA, %rax
	mov %rax, scratch + 8
	mov gdt + USER_DATA - 3, %rax
	mov %rax, scratch + 16
	mov $FREE, %ecx
	RUNS "LLDT", lldt %cx
	mov $-1, %rax
	sldt %rax
	CHECK "SLDT with 64 bits", %rax, $FREE
	mov $-1, %rax
	sldt %ax
	mov $0xffffffffffff0000 | FREE, %rcx
	CHECK "SLDT with 16 bits", %rax, %rcx
	mov $0x0c, %ecx
	RUNS "segment of the LDT", mov %ecx, %es
	mov $0x1c, %ecx
	FAULTS "selector beyond the LDT", GP, 0x1c, mov %ecx, %es
	LAR_IS "a segment of the LDT", 0x17, 0x00c0f300
	mov $4, %ecx
	FAULTS "entry 0 of the LDT that is no segment", GP, 4, mov %ecx, %es
	mov $DATA, %ecx
	mov %ecx, %es
	FAULTS "LLDT of a data segment", GP, DATA, lldt %cx
	mov $(FREE | 4), %ecx
	FAULTS "LLDT with a selector of the LDT", GP, (FREE | 4), lldt %cx
	DESCRIPTOR FREE, 0x0000020000000017
	mov $FREE, %ecx
	FAULTS "LLDT of an LDT that is not present", NP, FREE, lldt %cx
	DESCRIPTOR FREE, 0x0000820000000017
	DESCRIPTOR (FREE + 8), 0x0000000000008000
	FAULTS "LLDT of a base that is not canonical", GP, FREE, lldt %cx
	DESCRIPTOR (FREE + 8), 0x0000010000000000
	FAULTS "LLDT with a type in the upper half", GP, FREE, lldt %cx
	mov $0x1f8, %ecx
	DESCRIPTOR 0x1f8, 0x0000820000000017
	FAULTS "LLDT whose upper half is beyond the GDT", GP, 0x1f8, lldt %cx
	DESCRIPTOR 0x1f8, 0
	xor %ecx, %ecx
	RUNS "LLDT of the null selector", lldt %cx
	mov $0x0c, %ecx
	FAULTS "selector of the LDT without an LDT", GP, 0x0c, mov %ecx, %es

	# LTR, STR
	str %ecx
	CHECK "STR", %rcx, $TSS64
	mov $TSS64, %ecx
	FAULTS "LTR of a busy TSS", GP, TSS64, ltr %cx
	andb $~2, gdt + TSS64 + 5
	RUNS "LTR", ltr %cx
	LAR_IS "the TSS behind LTR", TSS64, 0x00008b00
	xor %ecx, %ecx
	FAULTS "LTR of the null selector", GP, 0, ltr %cx
	mov $DATA, %ecx
	FAULTS "LTR of a data segment", GP, DATA, ltr %cx
	DESCRIPTOR FREE, 0x0000090000000067
	DESCRIPTOR (FREE + 8), 0
	mov $FREE, %ecx
	FAULTS "LTR of a TSS that is not present", NP, FREE, ltr %cx
	DESCRIPTOR FREE, 0x0000810000000067
	FAULTS "LTR of a 16-bit TSS in IA-32e mode", GP, FREE, ltr %cx

	# Far transfers of 64-bit mode (Vol. 2A JMP, CALL)
	movl $1f, scratch
	movw $CODE64, scratch + 4
	TRY
	ljmpl *scratch
1:	END_TRY
	CHECK "far jump with a 32-bit offset", fault_vector, $-1
	movq $2f, scratch
	movw $CODE64, scratch + 8
	TRY
	rex.w ljmp *scratch
2:	END_TRY
	CHECK "far jump with a 64-bit offset", fault_vector, $-1
	movw $DATA, scratch + 8
	FAULTS "far jump to data", GP, DATA, rex.w ljmp *scratch
	movw $0, scratch + 8
	FAULTS "far jump to the null selector", GP, 0, rex.w ljmp *scratch
	movw $0x40, scratch + 8
	FAULTS "far jump to DPL 3", GP, 0x40, rex.w ljmp *scratch
	movw $0x210, scratch + 8
	FAULTS "far jump beyond the GDT", GP, 0x210, rex.w ljmp *scratch
	DESCRIPTOR FREE, 0x00af1b000000ffff
	movw $FREE, scratch + 8
	FAULTS "far jump to code that is not present", NP, FREE, rex.w ljmp *scratch
	DESCRIPTOR FREE, 0x00ef9b000000ffff
	FAULTS "far jump to code with L and D", GP, FREE, rex.w ljmp *scratch
	movw $CODE64, scratch + 8
	movl $0x12345678, scratch + 4
	FAULTS "far jump to an address that is not canonical", GP, 0, rex.w ljmp *scratch
	movw $TSS64, scratch + 8
	FAULTS "far jump to a TSS in 64-bit mode", GP, TSS64, rex.w ljmp *scratch
	# Call gates of IA-32e mode: 16 bytes (Vol. 3A 5.8.3.1)
	mov $gate_target, %eax
	mov %ax, gdt + FREE
	movw $CODE64, gdt + FREE + 2
	movw $0xec00, gdt + FREE + 4
	shr $16, %eax
	mov %ax, gdt + FREE + 6
	movq $0, gdt + FREE + 8
	movw $(FREE | 3), scratch + 8
	movq $0x1234, scratch
	xor %ebx, %ebx
	TRY
	mov %rsp, %r9
	rex.w lcall *scratch
3:	END_TRY
	CHECK "call through a gate", %rbx, $CODE64
	CHECK "its return address", %r8, $3b
	CHECK "16 bytes on the stack", %r10, $16
	TRY
	ENTER_USER
	mov %rsp, %r9
	rex.w lcall *scratch
4:	mov %cs, %r11d
	mov %rsp, %r12
	LEAVE_USER
	END_TRY
	CHECK "call inwards through a gate: no fault", fault_vector, $-1
	CHECK "CS inside", %rbx, $CODE64
	CHECK "return address inside", %r8, $4b
	CHECK "SS inside is null", %r13, $0
	CHECK "stack pushed: SS, RSP, CS, RIP", %r14, $(ring0_stack_top - 32)
	CHECK "behind the far return", %r11, $USER_CODE64
	CHECK "RSP behind it", %r12, %r9
	movl $0x8000, gdt + FREE + 8
	FAULTS "call gate to an address that is not canonical", GP, 0, rex.w lcall *scratch
	movl $0, gdt + FREE + 8
	movw $0x8c00, gdt + FREE + 4
	USER_FAULTS "call gate of DPL 0 at CPL 3", GP, FREE, rex.w lcall *scratch
	movw $0x6c00, gdt + FREE + 4
	FAULTS "call gate that is not present", NP, FREE, rex.w lcall *scratch
	movw $0xec00, gdt + FREE + 4
	movw $CODE32, gdt + FREE + 2
	FAULTS "call gate to 32-bit code in IA-32e mode", GP, CODE32, rex.w lcall *scratch
	movw $CODE64, gdt + FREE + 2
	movl $0x0c00, gdt + FREE + 12
	FAULTS "call gate with a type in the upper half", GP, FREE, rex.w lcall *scratch
	ret

gate_target:
	mov %cs, %ebx
	mov %ss, %r13d
	mov %rsp, %r14
	mov (%rsp), %r8
	mov %r9, %r10
	sub %rsp, %r10
	rex.w lret
