# Every mode in one boot, and the ways between them: real, 16- and 32-bit protected, 32-bit and PAE paging, IA-32e with compatibility
# and 64-bit code, and back (SDM Vol. 3A 2.2, 9.8.5, 9.9).

#include "kernel.inc"
#include "real.inc"

	.code32
	.globl main32
main32:
	call round
	CHECK32 "first round", $1, $1
	call round
	CHECK32 "second round", $2, $2
	ret

round:
	# 16-bit protected mode: default sizes of 16 bits
	ljmp $CODE16, $pm16
pm16_back:
	CHECK32 "16-bit protected mode: operands", %ebx, $0xaaaa1234
	CHECK32 "16-bit protected mode: CS", %ecx, $CODE16
	mov $real_part, %eax
	call enter_real
	CHECK32 "behind real mode", real_seen, $0x55aa

	# 32-bit paging
	mov $test_pd, %edi
	xor %eax, %eax
	mov $1024, %ecx
	rep stosl
	movl $(P | W | U | PS), test_pd
	movl $0x99, scratch
	movl $(test_pt + (P | W | U)), test_pd + 4
	movl $(scratch + (P | W | U)), test_pt
	mov $CR4_PSE, %eax
	mov %eax, %cr4
	mov $test_pd, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $CR0_PG, %eax
	mov %eax, %cr0
	CHECK32 "32-bit paging", 0x400000, $0x99
	mov %cr0, %eax
	and $~CR0_PG, %eax
	mov %eax, %cr0

	# PAE paging
	mov $identity_pd, %edi
	xor %eax, %eax
	mov $1024, %ecx
	rep stosl
	movl $(P | W | U | PS), identity_pd
	movl $(test_pt + (P | W | U)), identity_pd + 16
	movl $0, test_pt + 4
	movl $0, scratch + 0x1004
	movl $(identity_pd + P), scratch + 0x1000
	mov $CR4_PAE, %eax
	mov %eax, %cr4
	mov $scratch + 0x1000, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $CR0_PG, %eax
	mov %eax, %cr0
	CHECK32 "PAE paging", 0x400000, $0x99
	# LME can't be set while paging is on
	mov $MSR_EFER, %ecx
	rdmsr
	or $EFER_LME, %eax
	FAULTS32 "IA32_EFER.LME with paging", GP, 0, wrmsr
	mov %cr0, %eax
	and $~CR0_PG, %eax
	mov %eax, %cr0
	# IA-32e mode is not entered without CR4.PAE
	mov $MSR_EFER, %ecx
	rdmsr
	or $EFER_LME, %eax
	wrmsr
	xor %eax, %eax
	mov %eax, %cr4
	mov %cr0, %eax
	or $CR0_PG, %eax
	FAULTS32 "IA-32e mode without CR4.PAE", GP, 0, mov %eax, %cr0
	rdmsr
	and $EFER_LMA, %eax
	CHECK32 "LMA is clear", %eax, $0
	mov %esp, stack_of_32
	call enter_long
	.code64
	CHECK "64-bit mode", $1, $1
	GET_MSR MSR_EFER
	and $EFER_LMA, %eax
	CHECK "LMA is set", %rax, $EFER_LMA
	mov $0x1122334455667788, %r8
	# To compatibility mode by a far return
	pushq $CODE32
	pushq $compatibility
	rex.w lret
	.code32
compatibility:
	mov %cs, %eax
	CHECK32 "compatibility mode", %eax, $CODE32
	mov $-1, %eax
	inc %eax
	CHECK32 "32-bit INC in its short form", %eax, $0
	# 64-bit events: the handler's frame is of IA-32e mode
	mov %esp, %ebp
	mov $0x1234, %ebx
	ljmp $CODE64, $1f
	.code64
1:	mov %rsp, %rcx
	CHECK "RSP across compatibility mode", %rcx, %rbp
	mov $0x1122334455667788, %rax
	CHECK "R8 across compatibility mode", %r8, %rax
	# A fault in compatibility mode
	TRY
	pushq $CODE32
	pushq $2f
	rex.w lret
	.code32
2:	ud2
	.code64
	END_TRY
	EXPECT "#UD in compatibility mode", UD, NONE, 2b
	CHECK "its CS", fault_cs, $CODE32
	# 16-bit compatibility mode
	TRY
	pushq $CODE16
	pushq $low_compatibility
	rex.w lret
	END_TRY
	EXPECT "16-bit compatibility mode", UD, NONE, low_compatibility_end
	CHECK "its registers", %rbx, $0x77775678
	# Segment limits count in compatibility mode, and DS bases
	DESCRIPTOR FREE, 0x00cf93100000ffff
	TRY
	pushq $CODE32
	pushq $3f
	rex.w lret
	.code32
3:	mov $FREE, %eax
	mov %eax, %ds
	mov %ds:0, %ebx
	mov $DATA, %eax
	mov %eax, %ds
	ud2
	.code64
	END_TRY
	mov 0x100000, %ecx
	CHECK "DS base in compatibility mode", %rbx, %rcx
	# Out of IA-32e mode: through compatibility mode, paging off
	pushq $CODE32
	pushq $4f
	rex.w lret
	.code32
4:	mov %cr0, %eax
	and $~CR0_PG, %eax
	mov %eax, %cr0
	mov $MSR_EFER, %ecx
	rdmsr
	and $EFER_LMA, %eax
	CHECK32 "LMA is clear behind paging", %eax, $0
	rdmsr
	and $~EFER_LME, %eax
	wrmsr
	xor %eax, %eax
	mov %eax, %cr4
	lidt idt32_pointer
	mov $USER_DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	movb $0x89, gdt + TSS32 + 5
	mov $TSS32, %eax
	ltr %ax
	mov stack_of_32, %esp
	FAULTS32 "events of protected mode again", UD, NONE, ud2
	ret

	.section .low.text, "ax"
	.code16
pm16:	mov $0xaaaa0000, %ebx
	mov $0x1234, %bx
	xor %ecx, %ecx
	mov %cs, %cx
	ljmpl $CODE32, $pm16_back
real_part:
	movl $0x55aa, real_seen
	jmp leave_real
low_compatibility:
	mov $0x77770000, %ebx
	mov $0x5678, %bx
low_compatibility_end:
	ud2

	.section .low.data, "aw"
	.balign 4
real_seen:	.long 0
stack_of_32:	.long 0
