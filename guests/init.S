# INIT of the bootstrap processor, by the local APIC and by the chip set's registers that reset no more than the processors (ICH9 data sheet
# 13.7.3 and 13.7.5; IBM PC AT Technical Reference, "Keyboard controller"): it starts at the reset vector, and what is there goes on through 0040:0067
# where the shutdown byte of the CMOS RAM says so (SDM Vol. 3A 9.1.1 and 9.4.1; IBM PC AT Technical Reference, "Shutdown"; MP specification 1.4,
# B.4). Needs a whole machine.

#include "kernel.inc"
#include "real.inc"

ICR_LOW = 0xfee00300
ICR_HIGH = 0xfee00310
INIT = 0x4500
SHUTDOWN_BYTE = 0x0f
SYSTEM_CONTROL_A = 0x92
KEYBOARD_COMMAND = 0x64
RESET_CONTROL = 0xcf9
PIC_MASK = 0x21
APIC_BASE = 0x1b
APIC_ENABLE = 1 << 11

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

	# What the devices hold stays.
	mov $0xa5, %al
	out %al, $PIC_MASK
	movl $by_port92, source
	mov $0x0a, %al
	call init
	CHECK32 "port 92H", scratch16, $0x5555
	movl $by_keyboard, source
	mov $0x0a, %al
	call init
	CHECK32 "the keyboard controller", scratch16, $0x6666
	movl $by_reset_control, source
	mov $0x0a, %al
	call init
	CHECK32 "port CF9H without SYS_RST", scratch16, $0x7777
	in $PIC_MASK, %al
	movzbl %al, %eax
	CHECK32 "the 8259's mask", %eax, $0xa5
	# INIT# is no message of the local APIC's (SDM Vol. 3A 9.1).
	mov $APIC_BASE, %ecx
	rdmsr
	and $~APIC_ENABLE, %eax
	wrmsr
	movl $by_port92, source
	mov $0x0a, %al
	call init
	CHECK32 "port 92H with the local APIC disabled", scratch16, $0x8888
	ret

by_apic:
	movl $0, ICR_HIGH
	movl $INIT, ICR_LOW
	ret
by_port92:
	in $SYSTEM_CONTROL_A, %al
	and $0xfe, %al
	out %al, $SYSTEM_CONTROL_A
	or $1, %al
	out %al, $SYSTEM_CONTROL_A
	ret
by_keyboard:
	in $KEYBOARD_COMMAND, %al
	test $2, %al
	jnz by_keyboard
	mov $0xfe, %al
	out %al, $KEYBOARD_COMMAND
	ret
by_reset_control:
	mov $RESET_CONTROL, %edx
	xor %al, %al
	out %al, %dx
	mov $4, %al
	out %al, %dx
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
	call *source
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
source:	.long by_apic
frame:	.word 0, 0, 0
