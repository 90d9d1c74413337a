# Interrupts from the 8254 and the real-time clock through the pair of 8259s, in virtual wire mode: LINT0 is their INTR (SDM Vol. 3A 11.5.1, delivery
# mode ExtINT; MP specification 1.4, 3.6.2.2). 8259A data sheet: "Interrupt Sequence", "End of Interrupt", "Edge and Level Triggered Modes",
# "Automatic End of Interrupt". Needs a whole machine.

#include "kernel.inc"

#define APIC (TEST + 0x1000)
#define LINT0 (APIC + 0x350)
#define IOAPIC_INDEX (TEST + 0x2000)
#define IOAPIC_DATA (TEST + 0x2010)
MASTER = 0x20
SLAVE = 0xa0
IRQ0 = 0x40
IRQ7 = 0x47
IRQ8 = 0x48
EXTINT = 0x700
MASKED = 0x10000
# OCW2, OCW3
EOI = 0x20
SPECIFIC_EOI = 0x60
READ_IRR = 0x0a
READ_ISR = 0x0b

.macro PUT port:req, value:req
	mov $\value, %al
	out %al, $\port
.endm
# The IRR or ISR of a chip, to RAX.
.macro READ_PIC port:req, which:req
	PUT \port, \which
	in $\port, %al
	movzbl %al, %eax
.endm
.macro CMOS index:req, value:req
	PUT 0x70, \index
	PUT 0x71, \value
.endm
# Counter 0 in mode 0: OUT, which is IRQ 0, falls now and rises about 0.2 ms later (8254 data sheet, "Mode 0").
.macro START_TIMER
	PUT 0x43, 0x30
	PUT 0x40, 0
	PUT 0x40, 1
.endm
.macro TAKE_TICK
	START_TIMER
	sti
	hlt
	cli
.endm
# Until it is requested, masked or not.
.macro AWAIT_TIMER
8501:	READ_PIC MASTER, READ_IRR
	test $1, %al
	jz 8501b
.endm
# Interrupts may come for a while.
.macro LET_IN
	sti
	mov $1000, %ecx
8502:	dec %ecx
	jnz 8502b
	cli
.endm

# The first two vectors since these were zero.
.macro NOTE vector:req
	cmpq $0, second
	jne 8503f
	cmpq $0, first
	je 8504f
	movq $\vector, second
	jmp 8503f
8504:	movq $\vector, first
8503:
.endm

	.code64
	.globl main
main:
	movl $0xfee00000 + (P | W), test_pt + 8
	movl $0xfec00000 + (P | W), test_pt + 16
	invlpg APIC
	invlpg IOAPIC_INDEX
	movl $0x1ff, APIC + 0xf0
	movl $EXTINT, LINT0
	GATE64 IRQ0, 0x8e, CODE64, timer
	GATE64 IRQ7, 0x8e, CODE64, spurious
	GATE64 IRQ8, 0x8e, CODE64, clock
	movb $EOI, eoi
	movq $0, spurious_count
	mov $1, %bl
	call initialize

	# A timer's tick, with a non-specific EOI
	TAKE_TICK
	CHECK "one tick through LINT0", ticks, $1
	CHECK "in service in its handler", isr, $1
	READ_PIC MASTER, READ_ISR
	CHECK "no longer after a non-specific EOI", %rax, $0
	# A specific one
	movb $SPECIFIC_EOI, eoi
	TAKE_TICK
	CHECK "another tick", ticks, $2
	READ_PIC MASTER, READ_ISR
	CHECK "no longer in service after a specific EOI", %rax, $0
	# While it is in service nothing of its priority comes
	movb $0, eoi
	TAKE_TICK
	START_TIMER
	AWAIT_TIMER
	LET_IN
	CHECK "no second tick before the EOI", ticks, $3
	READ_PIC MASTER, READ_ISR
	CHECK "still in service", %rax, $1
	movb $EOI, eoi
	PUT MASTER, SPECIFIC_EOI + 1
	LET_IN
	CHECK "a specific EOI of another input changes nothing", ticks, $3
	PUT MASTER, SPECIFIC_EOI
	LET_IN
	CHECK "the second tick after the EOI", ticks, $4

	# A request that is gone when interrupts are enabled
	START_TIMER
	AWAIT_TIMER
	PUT 0x43, 0x30
	LET_IN
	CHECK "no tick where the input fell before it was taken", ticks, $4
	movq $0, ticks
	# Masks
	PUT MASTER + 1, 0xff
	START_TIMER
	AWAIT_TIMER
	LET_IN
	CHECK "no tick while it is masked", ticks, $0
	PUT MASTER + 1, 0xfa
	LET_IN
	CHECK "the tick comes when the mask goes", ticks, $1
	# LINT0 masked in the local APIC
	movl $(MASKED | EXTINT), LINT0
	START_TIMER
	AWAIT_TIMER
	LET_IN
	CHECK "no tick while LINT0 is masked", ticks, $1
	movl $EXTINT, LINT0
	LET_IN
	CHECK "the tick comes when LINT0 is let through", ticks, $2

	# IRQ 8 through the cascade: periodic interrupts of the real-time clock (MC146818, registers A to C)
	movq $0, first
	movq $0, second
	CMOS 0x0a, 0x26
	CMOS 0x0b, 0x42
	sti
1:	hlt
	cmpq $0, clocks
	je 1b
	cli
	CHECK "vector of IRQ 8", first, $IRQ8
	CHECK "the cascade is in service at the master", isr, $4
	CHECK "IRQ 8 at the slave", slave_isr, $1
	# Both wait: IRQ 0 is first
	call quiet
	START_TIMER
	AWAIT_TIMER
	CMOS 0x0b, 0x42
1:	READ_PIC SLAVE, READ_IRR
	test $1, %al
	jz 1b
	movq $0, first
	movq $0, second
	movq $0, clocks
	sti
1:	cmpq $0, clocks
	je 1b
	cli
	CHECK "IRQ 0 before IRQ 8", first, $IRQ0
	CHECK "and then that", second, $IRQ8
	# All masked: the pair is off, whatever its inputs do
	PUT MASTER + 1, 0xff
	PUT SLAVE + 1, 0xff
	movq $0, ticks
	movq $0, clocks
	START_TIMER
	AWAIT_TIMER
1:	READ_PIC SLAVE, READ_IRR
	test $1, %al
	jz 1b
	LET_IN
	mov ticks, %rax
	add clocks, %rax
	CHECK "nothing comes of masked 8259s", %rax, $0
	call quiet

	# An acknowledge without a request: an ExtINT message of the I/O APIC, whose input 2 is the timer too, while the 8259s are masked
	movl $0x15, IOAPIC_INDEX
	movl $0, IOAPIC_DATA
	movl $0x14, IOAPIC_INDEX
	movl $EXTINT, IOAPIC_DATA
	START_TIMER
	AWAIT_TIMER
	LET_IN
	movl $MASKED, IOAPIC_DATA
	CHECK "spurious IRQ 7", spurious_count, $1
	CHECK "nothing is in service for it", isr, $0
	CHECK "no tick", ticks, $0

	# Automatic end of interrupt
	mov $3, %bl
	call initialize
	movb $0, eoi
	TAKE_TICK
	TAKE_TICK
	CHECK "two ticks without an EOI", ticks, $2
	CHECK "not in service in its handler", isr, $0
	# With the local APIC disabled LINT0 is the processor's INTR (SDM Vol. 3A 11.4.3)
	movb $EOI, eoi
	mov $1, %bl
	call initialize
	SET_MSR 0x1b, 0xfee00100
	TAKE_TICK
	CHECK "a tick with the local APIC disabled", ticks, $1
	SET_MSR 0x1b, 0xfee00900
	PUT MASTER + 1, 0xff
	PUT SLAVE + 1, 0xff
	CHECK "one spurious interrupt in all", spurious_count, $1
	ret

# Both chips anew (data sheet, "Initialization Command Words"): BL is ICW4. IRQ 0, the cascade and IRQ 8 are let through; no ticks yet.
initialize:
	PUT 0x43, 0x30
	PUT MASTER, 0x11
	PUT MASTER + 1, IRQ0
	PUT MASTER + 1, 4
	mov %bl, %al
	out %al, $(MASTER + 1)
	PUT SLAVE, 0x11
	PUT SLAVE + 1, IRQ8
	PUT SLAVE + 1, 2
	PUT SLAVE + 1, 1
	PUT MASTER + 1, 0xfa
	PUT SLAVE + 1, 0xfe
	movq $0, ticks
	movq $0, clocks
	ret

# The real-time clock raises nothing from now on.
quiet:	CMOS 0x0b, 2
	PUT 0x70, 0x0c
	in $0x71, %al
	ret

timer:	push %rax
	incq ticks
	NOTE IRQ0
	READ_PIC MASTER, READ_ISR
	mov %rax, isr
	mov eoi, %al
	test %al, %al
	jz 1f
	out %al, $MASTER
1:	pop %rax
	iretq

clock:	push %rax
	incq clocks
	NOTE IRQ8
	READ_PIC MASTER, READ_ISR
	mov %rax, isr
	READ_PIC SLAVE, READ_ISR
	mov %rax, slave_isr
	PUT 0x70, 0x0c
	in $0x71, %al
	PUT SLAVE, EOI
	PUT MASTER, EOI
	pop %rax
	iretq

spurious:
	push %rax
	incq spurious_count
	READ_PIC MASTER, READ_ISR
	mov %rax, isr
	pop %rax
	iretq

	.data
	.balign 8
ticks:	.quad 0
clocks:	.quad 0
spurious_count:	.quad 0
first:	.quad 0
second:	.quad 0
isr:	.quad 0
slave_isr:	.quad 0
eoi:	.byte 0
