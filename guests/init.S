# INIT of the bootstrap processor: it starts at the reset vector, and what is there goes on through 0040:0067 where the shutdown byte of the CMOS
# RAM says so (SDM Vol. 3A 9.1.1 and 9.4.1; IBM PC AT Technical Reference, "Shutdown"; MP specification 1.4, B.4). Needs a whole machine.

#include "kernel.inc"
#include "real.inc"

ICR_LOW = 0xfee00300
ICR_HIGH = 0xfee00310
INIT = 0x4500
SHUTDOWN_BYTE = 0x0f

	.code32
	.globl main32
main32:
	movl $0, scratch16
	mov $0x0a, %al
	call init
	CHECK32 "A: by a far jump", scratch16, $0x1111
	mov $0x05, %al
	call init
	CHECK32 "5: by a far jump, after EOIs", scratch16, $0x2222
	# The frames that B and C find on the stack that 40:67 names
	movw $landed, frame
	movw $0, frame + 2
	movw $(FL_CF | 2), frame + 4
	mov $0x0b, %al
	call init_by_stack
	CHECK32 "B: by IRET", scratch16, $0x3333
	mov $0x0c, %al
	call init_by_stack
	CHECK32 "C: by a far return", scratch16, $0x4444
	ret

init_by_stack:
	movl $frame, 0x467
	jmp 1f
init:
	movl $landed, 0x467
1:	mov %al, %ah
	mov $SHUTDOWN_BYTE, %al
	out %al, $0x70
	mov %ah, %al
	out %al, $0x71
	mov %esp, saved_esp
	movl $0, ICR_HIGH
	movl $INIT, ICR_LOW
1:	hlt
	jmp 1b

	.section .low.text, "ax"
	.code16
landed:
	cli
	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %fs
	mov %ax, %gs
	mov %ax, %ss
	mov $0x7000, %esp
	mov %cr0, %eax
	and $0x80000001, %eax
	CHECK16 "CR0.PE and PG", %eax, $0
	mov %cr4, %eax
	CHECK16 "CR4", %eax, $0
	mov %cr3, %eax
	CHECK16 "CR3", %eax, $0
	xor %eax, %eax
	mov %cs, %ax
	CHECK16 "CS", %eax, $0
	mov $SHUTDOWN_BYTE, %al
	out %al, $0x70
	in $0x71, %al
	movzbl %al, %eax
	CHECK16 "the shutdown byte is used up", %eax, $0
	addl $0x1111, scratch16
	lgdtl gdt_pointer
	jmp leave_real

	.section .low.data, "aw"
	.balign 16
scratch16:	.long 0
frame:	.word 0, 0, 0
