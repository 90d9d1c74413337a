# Interrupt shadows of STI, MOV SS and POP SS (SDM Vol. 2B STI, MOV; Vol. 3A 6.8.3), interrupts and their flags. Interrupts come from the
# local APIC of the processor itself (Vol. 3A 10.6.1).

#include "kernel.inc"

#define APIC (TEST + 0x1000)
#define ICR (APIC + 0x300)
#define EOI (APIC + 0xb0)
#define SELF 0x40000

.macro SEND vector:req
	movl $(SELF | \vector), ICR
.endm
# Gives a pending interrupt the time to arrive at the processor.
.macro WAIT_A_WHILE
	mov $100, %ecx
8501:	dec %ecx
	jnz 8501b
.endm

	.code64
	.globl main
main:
	# APIC on, in its default place (Vol. 3A 10.4.3, 10.4.7.1)
	movl $0xfee00000 + (P | W), test_pt + 8
	invlpg APIC
	movl $0x1ff, APIC + 0xf0
	GATE64 0x40, 0x8e, CODE64, interrupt
	movq $0, interrupts
	movq $0, nmis
	movq $0, nmi_depth_seen

	# Nothing comes while IF is clear
	SEND 0x40
	WAIT_A_WHILE
	CHECK "no interrupt while IF is clear", interrupts, $0
	# The instruction behind STI still runs first
	xor %ebx, %ebx
	sti
	inc %ebx
after_sti:
	inc %ebx
	nop
	nop
	cli
	CHECK "one interrupt after STI", interrupts, $1
	CHECK "behind the instruction that follows STI", interrupt_rip, $after_sti
	# STI; CLI lets nothing in
	SEND 0x40
	WAIT_A_WHILE
	movq $0, interrupts
	sti
	cli
	WAIT_A_WHILE
	CHECK "STI and CLI let no interrupt in", interrupts, $0
	# A second STI, with IF set, casts no shadow
	sti
	sti
after_second_sti:
	nop
	nop
	cli
	CHECK "interrupt behind the second STI", interrupts, $1
	CHECK "STI casts a shadow only where IF was clear", interrupt_rip, $after_second_sti
	# MOV SS and POP SS shadow the next instruction
	mov $DATA, %edx
	movq $0, interrupts
	SEND 0x40
	WAIT_A_WHILE
	sti
	mov %edx, %ss
after_sti_mov_ss:
	nop
after_mov_ss:
	nop
	nop
	cli
	CHECK "interrupt behind STI and MOV SS", interrupts, $1
	# Only the first of several shadowing instructions is sure to have its effect (Vol. 2B MOV)
	mov interrupt_rip, %rax
	sub $after_sti_mov_ss, %rax
	shr $1, %rax
	CHECK "behind MOV SS or one further", %rax, $0
	# POPF sets IF without a shadow
	movq $0, interrupts
	SEND 0x40
	WAIT_A_WHILE
	pushq $(FL_IF | 2)
	popfq
after_popf:
	nop
	nop
	cli
	CHECK "POPF casts no shadow", interrupt_rip, $after_popf
	CHECK "interrupt behind POPF", interrupts, $1
	# IRET sets IF without a shadow
	movq $0, interrupts
	SEND 0x40
	WAIT_A_WHILE
	mov %rsp, %rax
	pushq $DATA
	push %rax
	pushq $(FL_IF | 2)
	pushq $CODE64
	pushq $after_iret
	iretq
after_iret:
	nop
	nop
	cli
	CHECK "IRET casts no shadow", interrupt_rip, $after_iret
	CHECK "interrupt behind IRET", interrupts, $1
	# HLT in the shadow of STI wakes: the interrupt comes after HLT
	movq $0, interrupts
	SEND 0x40
	WAIT_A_WHILE
	sti
	hlt
after_hlt:
	cli
	CHECK "STI and HLT: one interrupt", interrupts, $1
	CHECK "behind HLT", interrupt_rip, $after_hlt
	# Between the rounds of a repeated string instruction interrupts are taken, and it goes on
	movq $0, interrupts
	mov $test_pages, %edi
	mov $0x7777, %ecx
	mov $0x11, %eax
	SEND 0x40
	sti
	rep stosb
	cli
	CHECK "interrupt around REP STOSB", interrupts, $1
	CHECK "REP STOSB completes", %rcx, $0
	CHECK "RDI is right", %rdi, $test_pages + 0x7777
	# An exception in the shadow is delivered at once, with IF set in its image
	TRY
	sti
8701:	ud2
	END_TRY
	EXPECT "exception behind STI", UD, NONE, 8701b
	mov fault_flags, %rax
	and $FL_IF, %eax
	CHECK "IF in its image", %rax, $FL_IF
	cli

	# NMI: blocked until the next IRET (Vol. 3A 6.7.1), not by IF
	GATE64 NMI, 0x8e, CODE64, nmi
	movl $0, APIC + 0x310
	movl $0x400, ICR
	WAIT_A_WHILE
	WAIT_A_WHILE
	CHECK "NMI while IF is clear", nmis, $1
	# Inside the handler a second one waits; nmi sends it while nested is set
	movq $0, nmis
	movq $1, nested
	movl $0x400, ICR
	WAIT_A_WHILE
	WAIT_A_WHILE
	CHECK "second NMI", nmis, $2
	CHECK "it waited for IRET", nmi_depth_seen, $1
	# IRET of a nested exception ends the blocking too
	movq $0, nmis
	movq $2, nested
	movq $0, nmi_depth_seen
	movl $0x400, ICR
	WAIT_A_WHILE
	WAIT_A_WHILE
	CHECK "NMI behind an exception inside the handler", nmis, $2
	CHECK "came inside the first handler", nmi_depth_seen, $2
	ret

interrupt:
	incq interrupts
	push %rax
	mov 8(%rsp), %rax
	mov %rax, interrupt_rip
	pop %rax
	movl $0, EOI
	iretq

nmi:	push %rcx
	incq nmis
	incq nmi_depth
	mov nmi_depth, %rcx
	cmp nmi_depth_seen, %rcx
	jbe 1f
	mov %rcx, nmi_depth_seen
1:	cmpq $0, nested
	je 3f
	cmpq $1, nested
	jne 2f
	movq $0, nested
	movl $0x400, ICR
	WAIT_A_WHILE
	WAIT_A_WHILE
	jmp 3f
2:	movq $0, nested
	movl $0x400, ICR
	WAIT_A_WHILE
	GATE64 200, 0x8e, CODE64, just_return
	int $200
	WAIT_A_WHILE
	WAIT_A_WHILE
3:	decq nmi_depth
	pop %rcx
	iretq
just_return:
	iretq

	.data
	.balign 8
interrupts:	.quad 0
interrupt_rip:	.quad 0
nmis:	.quad 0
nmi_depth:	.quad 0
nmi_depth_seen:	.quad 0
nested:	.quad 0
