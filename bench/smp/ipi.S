# Two processors and nothing else: how long an interrupt takes to the other one and back. Prints lines as bench/guest-run.ts reads them, with the
# number of rounds for a checksum.
# Processor 0 sends a fixed interrupt by the ICR (SDM Vol. 3A 11.6.1), the other's handler sends one back: as xAPICs, then as x2APICs (11.12) where
# there are any. Times by the HPET (IA-PC HPET specification 1.0a, 2.3).

#include "kernel.inc"

#define ROUNDS 500000
#define APIC PAGE(0)
#define HPET PAGE(1)
#define PAGE(n) (TEST + (n) * 4096)
#define EOI 0xb0
#define SVR 0xf0
#define ICR_LOW 0x300
#define ICR_HIGH 0x310
#define ASK 0x40
#define ANSWER 0x41
#define SWITCH 0x42
#define MSR_APIC_BASE 0x1b
#define EXTENDED (1 << 10)
#define MSR_EOI 0x80b
#define MSR_ICR 0x830
#define CPUID_X2APIC (1 << 21)
#define NUMBER_DIGITS 20

.macro GATE vector:req, handler:req
	mov $\handler, %eax
	mov %ax, idt64 + \vector * 16
	shr $16, %eax
	mov %ax, idt64 + \vector * 16 + 6
.endm
# Sends to processor \to what \message says.
.macro SEND to:req, message:req
	movl $(\to << 24), APIC + ICR_HIGH
	movl $\message, APIC + ICR_LOW
.endm
.macro X2APIC_SEND to:req, message:req
	mov $MSR_ICR, %ecx
	mov $\message, %eax
	mov $\to, %edx
	wrmsr
.endm
.macro X2APIC_EOI
	mov $MSR_EOI, %ecx
	xor %eax, %eax
	xor %edx, %edx
	wrmsr
.endm
.macro X2APIC_ON
	mov $MSR_APIC_BASE, %ecx
	rdmsr
	or $EXTENDED, %eax
	wrmsr
.endm
# Times ROUNDS, twice, and prints them under \name; \send is how to ask.
.macro MEASURE name:req, send:req
	mov $1, %r13d
2:	mov HPET + 0xf0, %r12
	mov $ROUNDS, %ebx
3:	movl $0, flag
	\send 1, ASK
4:	pause
	cmpl $0, flag
	je 4b
	dec %ebx
	jnz 3b
	mov $\name, %esi
	call put_result
	inc %r13d
	cmp $2, %r13d
	jbe 2b
.endm

	.code64
	.globl main
main:
	MAP 0, 0xfee00000, (P | W | 0x10)
	MAP 1, 0xfed00000, (P | W | 0x10)
	orl $1, HPET + 0x10
	GATE ASK, asked
	GATE ANSWER, answered
	GATE SWITCH, switch
	movl $0x1ff, APIC + SVR
	SEND 1, 0x4500
	mov $10000000, %ecx
1:	dec %ecx
	jnz 1b
	mov $trampoline, %eax
	shr $12, %eax
	or $0x4600, %eax
	movl $(1 << 24), APIC + ICR_HIGH
	movl %eax, APIC + ICR_LOW
1:	pause
	cmpl $0, ready
	je 1b
	mov $text_userspace, %esi
	call puts64
	sti
	MEASURE text_xapic, SEND
	mov $1, %eax
	cpuid
	test $CPUID_X2APIC, %ecx
	jz 1f
	movl $0, ready
	SEND 1, SWITCH
2:	pause
	cmpl $0, ready
	je 2b
	X2APIC_ON
	GATE ASK, asked_x2apic
	GATE ANSWER, answered_x2apic
	MEASURE text_x2apic, X2APIC_SEND
1:
	cli
	mov $text_done, %esi
	call puts64
	# A triple fault ends the machine, whatever the other processor does.
	lidt no_idt
	int3

# Prints the name at ESI, the number R13, and how long it has been since R12 in nanoseconds.
put_result:
	mov HPET + 0xf0, %rax
	sub %r12, %rax
	# Femtoseconds a tick
	mov HPET + 4, %ecx
	mul %rcx
	mov $1000000, %ecx
	div %rcx
	push %rax
	call puts64
	mov %r13, %rax
	call put_number
	mov $text_space, %esi
	call puts64
	pop %rax
	call put_number
	mov $text_space, %esi
	call puts64
	mov $ROUNDS, %eax
	call put_hex64
	mov $text_newline, %esi
	jmp puts64

# Prints RAX.
put_number:
	mov $number_end, %esi
	mov $10, %ecx
1:	xor %edx, %edx
	div %rcx
	add $'0', %dl
	dec %esi
	mov %dl, (%rsi)
	test %rax, %rax
	jnz 1b
	jmp puts64

# On processor 0
answered:
	movl $1, flag
	movl $0, APIC + EOI
	iretq

# On processor 1
asked:
	movl $0, APIC + EOI
	SEND 0, ANSWER
	iretq

answered_x2apic:
	movl $1, flag
	X2APIC_EOI
	iretq

asked_x2apic:
	X2APIC_EOI
	X2APIC_SEND 0, ANSWER
	iretq

switch:
	movl $0, APIC + EOI
	X2APIC_ON
	movl $1, ready
	iretq

	.code32
other32:
	mov $DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov %cr4, %eax
	or $CR4_PAE, %eax
	mov %eax, %cr4
	mov $pml4, %eax
	mov %eax, %cr3
	mov $MSR_EFER, %ecx
	rdmsr
	or $(EFER_LME | EFER_NXE), %eax
	wrmsr
	mov %cr0, %eax
	and $~(CR0_CD | CR0_NW), %eax
	or $(CR0_PG | CR0_PE), %eax
	mov %eax, %cr0
	ljmp $CODE64, $other64
	.code64
other64:
	mov $other_stack_top, %esp
	lidt idt64_pointer
	movl $0x1ff, APIC + SVR
	movl $1, ready
	sti
1:	inc %rax
	jmp 1b

	.section .low.text, "ax"
	.balign 4096
	.code16
trampoline:
	cli
	xor %ax, %ax
	mov %ax, %ds
	lgdtl gdt_pointer
	mov %cr0, %eax
	or $CR0_PE, %eax
	mov %eax, %cr0
	ljmpl $CODE32, $other32

	.section .rodata
no_idt:	.word 0
	.quad 0
text_userspace:	.asciz "BENCH-USERSPACE\n"
text_xapic:	.asciz "BENCH ipi-xapic "
text_x2apic:	.asciz "BENCH ipi-x2apic "
text_space:	.asciz " "
text_newline:	.asciz "\n"
text_done:	.asciz "BENCH-DONE\n"
	.bss
	.balign 16
	.skip 4096
other_stack_top:
	# Away from code, whose pages are slow to write to
	.balign 4096
flag:	.long 0
	.balign 64
ready:	.long 0
	.balign 64
	.skip NUMBER_DIGITS
number_end:
	.byte 0
	.balign 4096
