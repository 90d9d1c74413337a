# The local APIC's registers moved onto a page of RAM: they come before memory, whose bytes stay as they were underneath, for this processor
# (SDM Vol. 3A 11.4.5, 11.4.1). In x2APIC mode and with the APIC disabled there is no page (11.12.1). Needs a whole machine.

#include "kernel.inc"

MSR_APIC_BASE = 0x1b
ENABLED = 0x800
EXTENDED = 0x400
BSP = 0x100
USUAL = 0xfee00000
PAGE = 0x500000
VERSION = 0x30
TPR = 0x80
SPURIOUS = 0xf0
RAM_BYTES = 0x11223344

.macro APIC_BASE value:req
	mov $MSR_APIC_BASE, %ecx
	mov $\value, %eax
	xor %edx, %edx
	wrmsr
.endm

	.code64
	.globl main
main:
	movl $USUAL + (P | W), test_pt
	movl $PAGE + (P | W), test_pt + 8
	invlpg TEST
	invlpg TEST + 0x1000
	mov TEST + VERSION, %ebx
	# In the TLB, for reading and writing, by two addresses; code is there too
	mov $PAGE, %edi
	mov $RAM_BYTES, %eax
	mov $1024, %ecx
	rep stosl
	movb $0xc3, PAGE + 0x400
	mov $PAGE + 0x400, %eax
	call *%rax
	mov TEST + 0x1000 + VERSION, %eax
	CHECK "RAM", %rax, $RAM_BYTES

	APIC_BASE PAGE + ENABLED + BSP
	mov PAGE + VERSION, %eax
	CHECK "version register at the new place", %rax, %rbx
	mov TEST + 0x1000 + VERSION, %eax
	CHECK "by another linear address", %rax, %rbx
	mov TEST + VERSION, %eax
	mov $0xffffffff, %edx
	CHECK "nothing at the old place", %rax, %rdx
	movl $0x20, PAGE + TPR
	mov %cr8, %rax
	CHECK "task priority written there", %rax, $2
	movl $0x1ff, PAGE + SPURIOUS
	mov PAGE + SPURIOUS, %eax
	CHECK "spurious vector register", %rax, $0x1ff
	mov PAGE - 4, %eax
	mov PAGE + 0x1000, %ecx
	movl $5, PAGE - 4
	movl $6, PAGE + 0x1000
	mov PAGE - 4, %eax
	CHECK "RAM in front of it", %rax, $5
	mov PAGE + 0x1000, %eax
	CHECK "RAM behind it", %rax, $6

	APIC_BASE PAGE + ENABLED + EXTENDED + BSP
	mov PAGE + VERSION, %eax
	CHECK "RAM in x2APIC mode", %rax, $RAM_BYTES
	mov PAGE + TPR, %eax
	CHECK "which the registers did not write", %rax, $RAM_BYTES
	mov $0x803, %ecx
	rdmsr
	CHECK "version register by RDMSR", %rax, %rbx
	APIC_BASE PAGE + BSP
	mov PAGE + TPR, %eax
	CHECK "RAM with the APIC disabled", %rax, $RAM_BYTES

	APIC_BASE PAGE + ENABLED + BSP
	mov PAGE + VERSION, %eax
	CHECK "registers again", %rax, %rbx
	APIC_BASE USUAL + ENABLED + BSP
	mov TEST + VERSION, %eax
	CHECK "back at the usual place", %rax, %rbx
	mov PAGE + VERSION, %eax
	CHECK "RAM again", %rax, $RAM_BYTES
	movl $7, PAGE + VERSION
	mov TEST + 0x1000 + VERSION, %eax
	CHECK "which can be written", %rax, $7
	mov $PAGE + 0x400, %eax
	call *%rax
	ret
