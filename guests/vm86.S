# Virtual-8086 mode: entry by IRET, interrupts to protected mode, IOPL-sensitive instructions, I/O, what is undefined
# (SDM Vol. 3B 20.2).

#include "kernel.inc"

# V86 code lies in the low part, reached as segment 0. Everything goes to the 32-bit handlers.
.macro ENTER_V86 target:req, flags=0x20002
	mov %esp, tss32 + 4
	movl $-1, fault_vector
	movl $8801f, resume
	pushl $0x1000		# GS
	pushl $0x2000		# FS
	pushl $0x3000		# DS
	pushl $0x4000		# ES
	pushl $0		# SS
	pushl $0x7000		# ESP
	pushl $\flags
	pushl $0		# CS
	pushl $\target
	mov %esp, resume_rsp
	addl $36, resume_rsp
	iretl
8801:	movl $0, resume
	mov $ring0_stack_top, %eax
	mov %eax, tss32 + 4
.endm
# The V86 code ends in an exception: vector, error and IP are checked.
.macro V86_ENDS name:req, target:req, flags:req, vector:req, error:req, ip:req
	ENTER_V86 \target, \flags
	EXPECT32 "\name", \vector, \error, \ip
.endm

	.code32
	.globl main32
main32:
	# Entry: segments and their bases; the frame of the exit holds them
	GATE32 200, 0x8e, CODE32, frame_handler
	ENTER_V86 v86_registers
	CHECK32 "vector that ended it", fault_vector, $UD
	CHECK32 "CS in V86 mode", v86_seen, $0
	CHECK32 "DS in V86 mode", v86_seen + 4, $0x3000
	CHECK32 "ES in V86 mode", v86_seen + 8, $0x4000
	CHECK32 "FS in V86 mode", v86_seen + 12, $0x2000
	CHECK32 "GS in V86 mode", v86_seen + 16, $0x1000
	CHECK32 "SP in V86 mode", v86_seen + 20, $0x7000
	mov v86_seen + 24, %eax
	CHECK32 "DS base is selector * 16", %eax, 0x30010
	mov fault_flags, %eax
	and $FL_VM, %eax
	CHECK32 "VM in the image", %eax, $FL_VM
	CHECK32 "ESP in the image", fault_rsp, $0x7000
	# The handler's data segments are null on entry, the frame holds those of V86 mode
	GATE32 UD, 0x8e, CODE32, frame_handler
	ENTER_V86 v86_registers
	CHECK32 "ES in the frame", v86_frame + 20, $0x4000
	CHECK32 "DS in the frame", v86_frame + 24, $0x3000
	CHECK32 "FS in the frame", v86_frame + 28, $0x2000
	CHECK32 "GS in the frame", v86_frame + 32, $0x1000
	CHECK32 "DS in the handler", handler_ds, $0
	CHECK32 "ES in the handler", handler_ds + 4, $0
	CHECK32 "FS in the handler", handler_ds + 8, $0
	CHECK32 "GS in the handler", handler_ds + 12, $0
	CHECK32 "SS in the handler", handler_ds + 16, $DATA
	USUAL_GATE32 UD

	# IOPL below 3: CLI, STI, PUSHF, POPF, INT n, IRET are #GP(0) (20.2.7)
	V86_ENDS "CLI with IOPL 0", v86_cli, 0x20002, GP, 0, v86_cli
	V86_ENDS "STI with IOPL 0", v86_sti, 0x20002, GP, 0, v86_sti
	V86_ENDS "PUSHF with IOPL 0", v86_pushf, 0x20002, GP, 0, v86_pushf
	V86_ENDS "POPF with IOPL 0", v86_popf, 0x20002, GP, 0, v86_popf
	V86_ENDS "INT n with IOPL 0", v86_int, 0x20002, GP, 0, v86_int
	V86_ENDS "IRET with IOPL 0", v86_iret, 0x20002, GP, 0, v86_iret
	V86_ENDS "INT3 needs no IOPL", v86_int3, 0x20002, BP, NONE, v86_int3+1
	V86_ENDS "HLT", v86_hlt, 0x23002, GP, 0, v86_hlt
	# IOPL 3: they run
	V86_ENDS "CLI and the rest with IOPL 3", v86_flags, 0x23002, UD, NONE, v86_flags_end
	mov v86_seen, %eax
	CHECK32 "PUSHF image: IOPL 3, VM clear", %eax, $0x3002
	mov fault_flags, %eax
	and $(FL_VM | 0x3000), %eax
	CHECK32 "POPF does not change VM and IOPL", %eax, $(FL_VM | 0x3000)
	V86_ENDS "IRET with IOPL 3", v86_iret_runs, 0x23002, UD, NONE, v86_iret_end
	GATE32 200, 0xee, CODE32, (stubs32 + 200 * 16)
	V86_ENDS "INT n with IOPL 3", v86_int, 0x23002, 200, NONE, v86_int+2
	GATE32 200, 0x8e, CODE32, (stubs32 + 200 * 16)
	V86_ENDS "INT n through a gate of DPL 0", v86_int, 0x23002, GP, (200 * 8 + 2), v86_int
	DESCRIPTOR FREE, 0x00cffb000000ffff
	GATE32 200, 0xee, (FREE | 3), (stubs32 + 200 * 16)
	V86_ENDS "INT n to a handler of DPL 3", v86_int, 0x23002, GP, FREE, v86_int
	DESCRIPTOR FREE, 0x00cf9f000000ffff
	GATE32 200, 0xee, FREE, (stubs32 + 200 * 16)
	V86_ENDS "INT n to a conforming handler", v86_int, 0x23002, GP, FREE, v86_int
	# CPL is 3: privileged instructions
	V86_ENDS "MOV from CR0", v86_cr0, 0x23002, GP, 0, v86_cr0
	V86_ENDS "LGDT", v86_lgdt, 0x23002, GP, 0, v86_lgdt
	V86_ENDS "RDMSR", v86_rdmsr, 0x23002, GP, 0, v86_rdmsr
	# Undefined there
	V86_ENDS "LAR", v86_lar, 0x23002, UD, NONE, v86_lar
	V86_ENDS "VERR", v86_verr, 0x23002, UD, NONE, v86_verr
	V86_ENDS "SLDT", v86_sldt, 0x23002, UD, NONE, v86_sldt
	V86_ENDS "STR", v86_str, 0x23002, UD, NONE, v86_str
	V86_ENDS "ARPL", v86_arpl, 0x23002, UD, NONE, v86_arpl
	# I/O: the bit map alone decides, whatever IOPL (20.2.8.1)
	V86_ENDS "IN without a bit map", v86_in, 0x23002, GP, 0, v86_in
	# Limits of 64 KiB
	V86_ENDS "word at FFFFH", v86_limit, 0x23002, GP, 0, v86_limit
	V86_ENDS "word at SS:FFFFH", v86_stack_limit, 0x23002, SS_, 0, v86_stack_limit_at
	# 20-bit addresses plus: FFFF:0010 is 1 MiB
	V86_ENDS "FFFF:0010", v86_high, 0x23002, UD, NONE, v86_high_end
	CHECK32 "what is there", v86_seen, $0x1badb002
	# Exceptions
	V86_ENDS "division by zero", v86_div, 0x23002, DE, NONE, v86_div_at
	# Paging applies, with user rights
	mov $test_pd, %edi
	xor %eax, %eax
	mov $1024, %ecx
	rep stosl
	movl $(P | W | U | PS), test_pd
	mov $CR4_PSE, %eax
	mov %eax, %cr4
	mov $test_pd, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $CR0_PG, %eax
	mov %eax, %cr0
	V86_ENDS "with paging", v86_ud, 0x23002, UD, NONE, v86_ud
	andl $~U, test_pd
	mov %cr3, %eax
	mov %eax, %cr3
	V86_ENDS "supervisor page", v86_ud, 0x23002, PF, 5, v86_ud
	mov %cr0, %eax
	and $~CR0_PG, %eax
	mov %eax, %cr0
	# POPF at CPL 0 does not set VM; IRET at CPL 3 neither
	pushl $(FL_VM | 2)
	popfl
	pushfl
	pop %eax
	CHECK32 "POPF does not set VM", %eax, $2
	TRY32
	ENTER_USER32 0x3002
	pushl $(FL_VM | 0x3002)
	pushl $USER_CODE32
	pushl $1f
	iretl
1:	pushfl
	pop %ebx
	LEAVE_USER
	END_TRY32
	CHECK32 "IRET at CPL 3 does not set VM", %ebx, $0x3002
	ret

frame_handler:
	push %eax
	mov %ds, %ss:handler_ds
	mov %es, %ss:handler_ds + 4
	mov %fs, %ss:handler_ds + 8
	mov %gs, %ss:handler_ds + 12
	mov %ss, %ss:handler_ds + 16
	mov $USER_DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	pop %eax
	mov %esp, %esi
	mov $v86_frame, %edi
	mov $9, %ecx
	rep movsl
	pushl $-1
	pushl $UD
	jmp common32

	.section .low.text, "ax"
	.code16
v86_registers:
	mov %cs, %eax
	mov %eax, %cs:v86_seen
	mov %ds, %eax
	mov %eax, %cs:v86_seen + 4
	mov %es, %eax
	mov %eax, %cs:v86_seen + 8
	mov %fs, %eax
	mov %eax, %cs:v86_seen + 12
	mov %gs, %eax
	mov %eax, %cs:v86_seen + 16
	mov %esp, %eax
	mov %eax, %cs:v86_seen + 20
	mov %ds:0x10, %eax
	mov %eax, %cs:v86_seen + 24
v86_ud:	ud2
v86_cli:
	cli
v86_sti:
	sti
v86_pushf:
	pushfw
v86_popf:
	popfw
v86_int:
	int $200
v86_iret:
	iretw
v86_int3:
	int3
v86_hlt:
	hlt
v86_cr0:
	mov %cr0, %eax
v86_lgdt:
	lgdtl %cs:v86_seen
v86_rdmsr:
	rdmsr
v86_lar:
	.byte 0x0f, 0x02, 0xc0
v86_verr:
	.byte 0x0f, 0x00, 0xe0
v86_sldt:
	.byte 0x0f, 0x00, 0xc0
v86_str:
	.byte 0x0f, 0x00, 0xc8
v86_arpl:
	.byte 0x63, 0xc0
v86_in:	in $0x80, %al
v86_limit:
	mov %ds:0xffff, %ax
v86_stack_limit:
	mov $0xffff, %bp
v86_stack_limit_at:
	mov (%bp), %ax
v86_high:
	mov $0xffff, %ax
	mov %ax, %ds
	mov %ds:0x10, %eax
	mov %eax, %cs:v86_seen
v86_high_end:
	ud2
v86_div:
	xor %ecx, %ecx
	mov $1, %ax
	xor %dx, %dx
v86_div_at:
	div %cx
v86_flags:
	cli
	xor %eax, %eax
	pushfl
	popl %eax
	and $~0x40044, %eax
	mov %eax, %cs:v86_seen
	pushl $0x2
	popfl
	sti
	cli
v86_flags_end:
	ud2
v86_iret_runs:
	pushw $2
	pushw $0
	pushw $v86_iret_end
	iretw
	nop
v86_iret_end:
	ud2

	.section .low.data, "aw"
	.balign 4
v86_seen:	.fill 8, 4, 0
v86_frame:	.fill 9, 4, 0
handler_ds:	.fill 5, 4, 0
