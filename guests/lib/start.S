# The start of every test kernel: Multiboot 1 (Multiboot Specification 0.6.96, 3.1) enters 32-bit protected mode; tables, handlers and
# output for 16-, 32- and 64-bit code; then main32, or main in 64-bit mode.

#include "kernel.inc"

	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002, 0, -0x1badb002

	.text
	.code32
	.globl start
start:
	cli
	cld
	mov $stack_top, %esp
	# A digit behind a star on the command line is the number of times to run everything
	mov $1, %ebp
	cmp $0x2badb002, %eax
	jne 3f
	testl $4, (%ebx)
	jz 3f
	mov 16(%ebx), %esi
1:	lodsb
	test %al, %al
	jz 3f
	cmp $'*', %al
	jne 1b
	lodsb
	and $0xf, %eax
	mov %eax, %ebp
3:
	# What real mode reaches
	mov $low_image, %esi
	mov $low_start, %edi
	mov $low_end, %ecx
	sub %edi, %ecx
	rep movsb
	mov %ebp, rounds
	lgdt gdt_pointer
	ljmp $CODE32, $1f
	# DS and ES serve 32-bit code at every level
1:	mov $USER_DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov $DATA, %eax
	mov %eax, %fs
	mov %eax, %gs
	mov %eax, %ss
	# No interrupt from the 8259 pair (data sheet: OCW1)
	mov $0xff, %al
	out %al, $0x21
	out %al, $0xa1

	# TSS descriptors need their base spread out
	mov $tss64, %eax
	mov %ax, gdt + TSS64 + 2
	shr $16, %eax
	mov %al, gdt + TSS64 + 4
	mov %ah, gdt + TSS64 + 7
	mov $tss32, %eax
	mov %ax, gdt + TSS32 + 2
	shr $16, %eax
	mov %al, gdt + TSS32 + 4
	mov %ah, gdt + TSS32 + 7

	# Gates: 16-byte stubs, one for each vector
	xor %ecx, %ecx
1:	mov %ecx, %eax
	shl $4, %eax
	lea stubs32(%eax), %edx
	mov %dx, idt32(, %ecx, 8)
	movw $CODE32, idt32 + 2(, %ecx, 8)
	movw $0x8e00, idt32 + 4(, %ecx, 8)
	shr $16, %edx
	mov %dx, idt32 + 6(, %ecx, 8)
	lea stubs64(%eax), %edx
	mov %dx, idt64(%eax)
	movw $CODE64, idt64 + 2(%eax)
	movw $0x8e00, idt64 + 4(%eax)
	shr $16, %edx
	mov %dx, idt64 + 6(%eax)
	inc %ecx
	cmp $256, %ecx
	jb 1b
	# INT 81H leaves CPL 3; #BP and #OF may be called from there
	movb $0xee, idt32 + 0x81 * 8 + 5
	movb $0xee, idt64 + 0x81 * 16 + 5
	movb $0xee, idt32 + BP * 8 + 5
	movb $0xee, idt64 + BP * 16 + 5
	movb $0xee, idt32 + OF * 8 + 5
	movb $0xee, idt64 + OF * 16 + 5

	lidt idt32_pointer
	mov $TSS32, %eax
	ltr %ax
	mov $main32, %eax
	test %eax, %eax
	jz 1f
	mov $0x23, %eax
	and $~0xe, %eax
	mov %eax, %cr0
2:	call clean
	call main32
	decl rounds
	jnz 2b
	jmp finish32
1:	call enter_long
	.code64
2:	mov $test_pt, %edi
	mov $4096, %ecx
	call clean64
	mov $test_pages, %edi
	mov $32 * 4096, %ecx
	call clean64
	mov $gdt + FREE, %edi
	mov $0x200 - FREE, %ecx
	call clean64
	mov %cr3, %rax
	mov %rax, %cr3
	call main
	decl rounds
	jnz 2b
	jmp finish64
clean64:
	xor %eax, %eax
	rep stosb
	ret

# What a round may count on: the window unmapped, its frames, `scratch` and the free descriptors zero.
	.code32
clean:
	mov $test_pt, %edi
	mov $4096, %ecx
	xor %eax, %eax
	rep stosb
	mov $test_pages, %edi
	mov $32 * 4096, %ecx
	rep stosb
	mov $gdt + FREE, %edi
	mov $0x200 - FREE, %ecx
	rep stosb
	ret

# From 32-bit protected mode without paging to 64-bit mode (SDM Vol. 3A 9.8.5); keeps nothing but the stack pointer.
	.code32
	.globl enter_long
enter_long:
	# Identity map of 1 GiB by 2 MiB pages for everyone, and the window at TEST
	xor %ecx, %ecx
1:	mov %ecx, %eax
	shl $21, %eax
	or $(P | W | U | PS), %eax
	mov %eax, identity_pd(, %ecx, 8)
	movl $0, identity_pd + 4(, %ecx, 8)
	inc %ecx
	cmp $512, %ecx
	jb 1b
	movl $(pdpt + (P | W | U)), pml4
	movl $(identity_pd + (P | W | U)), pdpt
	movl $(test_pd + (P | W | U)), pdpt + 8
	movl $(test_pt + (P | W | U)), test_pd
	mov $(CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT), %eax
	mov %eax, %cr4
	mov $pml4, %eax
	mov %eax, %cr3
	mov $MSR_EFER, %ecx
	rdmsr
	or $(EFER_LME | EFER_NXE | EFER_SCE), %eax
	wrmsr
	mov $(CR0_PG | CR0_WP | CR0_NE | 0x10 | CR0_MP | CR0_PE), %eax
	mov %eax, %cr0
	lidt idt64_pointer
	ljmp $CODE64, $1f
	.code64
	# The 32-bit caller pushed four bytes
1:	movl (%rsp), %eax
	add $4, %rsp
	and $-16, %rsp
	mov $DATA, %ecx
	mov %ecx, %ds
	mov %ecx, %es
	mov %ecx, %fs
	mov %ecx, %gs
	mov %ecx, %ss
	andb $~2, gdt + TSS64 + 5
	mov $TSS64, %ecx
	ltr %cx
	jmp *%rax

# Exceptions in 64-bit mode
	.balign 16
	.globl stubs64
stubs64:
vector = 0
	.rept 256
	.balign 16
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
	pushq $-1
	.endif
	pushq $vector
	jmp common64
vector = vector + 1
	.endr

# Stack: vector, error, RIP, CS, RFLAGS, RSP, SS
	.globl common64
common64:
	cmpq $0x81, (%rsp)
	je 2f
	push %rax
	mov 8(%rsp), %rax
	mov %rax, fault_vector
	mov 16(%rsp), %rax
	mov %rax, fault_error
	mov 24(%rsp), %rax
	mov %rax, fault_rip
	mov 32(%rsp), %rax
	mov %rax, fault_cs
	mov 40(%rsp), %rax
	mov %rax, fault_flags
	mov 48(%rsp), %rax
	mov %rax, fault_rsp
	mov 56(%rsp), %rax
	mov %rax, fault_ss
	mov %cr2, %rax
	mov %rax, fault_cr2
	lea 64(%rsp), %rax
	mov %rax, fault_frame_end
	cmpq $0, resume
	je unexpected64
	mov (%rsp), %rax
	mov resume_rsp, %rsp
	pushq $DATA
	pushq resume_rsp
	pushq $2
	pushq $CODE64
	pushq resume
	iretq
# INT 81H: back to CPL 0
2:	add $16, %rsp
	push %rax
	mov 8(%rsp), %rax
	mov %rax, user_return_rip
	mov 24(%rsp), %rax
	mov %rax, user_flags
	pop %rax
	mov user_return_rsp, %rsp
	pushq $DATA
	pushq user_return_rsp
	pushq $2
	pushq $CODE64
	pushq user_return_rip
	iretq

unexpected64:
	mov $text_unexpected, %esi
	call puts64
	mov $fault_vector, %ebx
1:	mov 4(%rbx), %eax
	call put_hex64
	mov (%rbx), %eax
	call put_hex64
	mov $text_space, %esi
	call puts64
	add $8, %ebx
	cmp $fault_end, %ebx
	jb 1b
	mov $text_newline, %esi
	call puts64
	incl checks_failed
	jmp finish64

#define F(name) name##64
#define AX %rax
#define CX %rcx
#define DX %rdx
#define SI %rsi
#define ZX(reg) %r##reg
#define SEG
#define WIDE_COMPARE mov check_got + 4, %eax; cmp %eax, check_want + 4; jne 1f
#define WIDE_PUT(value) mov value + 4, %eax; call put_hex64
#include "report.inc"

	.code32
	.balign 16
	.globl stubs32
stubs32:
vector = 0
	.rept 256
	.balign 16
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
	pushl $-1
	.endif
	pushl $vector
	jmp common32
vector = vector + 1
	.endr

# Stack: vector, error, EIP, CS, EFLAGS, ESP, SS, and from virtual-8086 mode ES, DS, FS, GS. Any segment may hold anything.
	.globl common32
common32:
	cmpl $0x81, %ss:(%esp)
	push %eax
	push %ds
	push %es
	mov $USER_DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	je 2f
	mov 12(%esp), %eax
	mov %eax, fault_vector
	mov 16(%esp), %eax
	mov %eax, fault_error
	mov 20(%esp), %eax
	mov %eax, fault_rip
	mov 24(%esp), %eax
	mov %eax, fault_cs
	mov 28(%esp), %eax
	mov %eax, fault_flags
	mov 32(%esp), %eax
	mov %eax, fault_rsp
	mov 36(%esp), %eax
	mov %eax, fault_ss
	mov %cr2, %eax
	mov %eax, fault_cr2
	lea 40(%esp), %eax
	mov %eax, fault_frame_end
	cmpl $0, resume
	je unexpected32
	mov 8(%esp), %eax
	mov resume_rsp, %esp
	pushl %eax
	mov $DATA, %eax
	mov %eax, %ss
	popl %eax
	pushl $2
	pushl $CODE32
	pushl resume
	iretl
2:	mov 20(%esp), %eax
	mov %eax, user_return_rip
	mov 28(%esp), %eax
	mov %eax, user_flags
	mov 8(%esp), %eax
	mov user_return_rsp, %esp
	pushl $2
	pushl $CODE32
	pushl user_return_rip
	iretl

unexpected32:
	mov $text_unexpected, %esi
	call puts32
	mov $fault_vector, %ebx
1:	mov (%ebx), %eax
	call put_hex32
	mov $text_space, %esi
	call puts32
	add $8, %ebx
	cmp $fault_end, %ebx
	jb 1b
	mov $text_newline, %esi
	call puts32
	incl checks_failed
	jmp finish32

#undef F
#undef AX
#undef CX
#undef DX
#undef SI
#undef ZX
#undef SEG
#undef WIDE_COMPARE
#undef WIDE_PUT
#define F(name) name##32
#define AX %eax
#define CX %ecx
#define DX %edx
#define SI %esi
#define ZX(reg) %e##reg
#define SEG %ss:
#define WIDE_COMPARE
#define WIDE_PUT(value)
#include "report.inc"

	.section .low.text, "ax"
	.code16
#undef F
#define F(name) name##16
#include "report.inc"

	.globl puts64, puts32, puts16, report64, report32, report16, pack_fault64, pack_fault32, pack_fault16
	.globl finish64, finish32, finish16, put_hex64, put_hex32, put_hex16
	.weak main32, main

	.section .low.data, "aw"
	.balign 16
	.globl gdt
gdt:
	.quad 0
	.quad 0x00af9b000000ffff
	.quad 0x00cf93000000ffff
	.quad 0x00cf9b000000ffff
	.quad 0x00009b000000ffff
	.quad 0x000093000000ffff
	.quad 0x00cffb000000ffff
	.quad 0x00cff3000000ffff
	.quad 0x00affb000000ffff
	.quad 0x0000890000000067
	.quad 0
	.quad 0x0000890000000067
	.fill 0x200 - 0x60, 1, 0
	.globl gdt_pointer, idt32_pointer, idt64_pointer
gdt_pointer:
	.word 0x1ff
	.quad gdt
idt32_pointer:
	.word 256 * 8 - 1
	.quad idt32
idt64_pointer:
	.word 256 * 16 - 1
	.quad idt64

	.balign 8
	.globl fault_vector, fault_error, fault_rip, fault_cs, fault_flags, fault_rsp, fault_ss, fault_cr2, fault_frame_end
fault_vector:	.quad 0
fault_error:	.quad 0
fault_rip:	.quad 0
fault_cs:	.quad 0
fault_flags:	.quad 0
fault_rsp:	.quad 0
fault_ss:	.quad 0
fault_cr2:	.quad 0
fault_frame_end:	.quad 0
fault_end:
	.globl resume, resume_rsp, user_return_rsp, user_return_rip, user_flags
resume:	.quad 0
resume_rsp:	.quad 0
user_return_rsp:	.quad 0
user_return_rip:	.quad 0
user_flags:	.quad 0
	.globl check_name, check_got, check_want, checks_done, checks_failed, expected_rip, fault_packed
check_got:	.quad 0
check_want:	.quad 0
expected_rip:	.quad 0
fault_packed:	.quad 0
check_name:	.long 0
rounds:	.long 0
checks_done:	.long 0
checks_failed:	.long 0
hex_text:	.asciz "0"
hex_digits:	.ascii "0123456789abcdef"
text_ok:	.asciz "ok "
text_fail:	.asciz "FAIL "
text_got:	.asciz ": got "
text_want:	.asciz " want "
text_newline:	.asciz "\n"
text_space:	.asciz " "
text_done:	.asciz "done "
text_unexpected:	.asciz "FAIL unexpected exception (vector, error, RIP, CS, RFLAGS, RSP, SS, CR2): "

	.data
	.balign 16
	.globl tss64, tss32
tss64:
	.long 0
	.quad ring0_stack_top
	.fill 0x24 - 12, 1, 0
	.quad ist_stack_top
	.fill 0x66 - 0x2c, 1, 0
	.word 0x68
	.balign 16
tss32:
	.long 0, ring0_stack_top, DATA
	.fill 0x66 - 12, 1, 0
	.word 0x68

	.bss
	.balign 4096
	.globl pml4, pdpt, identity_pd, test_pd, test_pt, idt32, idt64, test_pages, scratch
pml4:	.skip 4096
pdpt:	.skip 4096
identity_pd:	.skip 4096
test_pd:	.skip 4096
test_pt:	.skip 4096
idt32:	.skip 4096
idt64:	.skip 4096
# Frames for the window, and memory for whatever a test needs
test_pages:	.skip 16 * 4096
scratch:	.skip 16 * 4096
	.globl stack_top, ring0_stack_top, user_stack_top, ist_stack_top
	.skip 16384
stack_top:
	.skip 8192
ring0_stack_top:
	.skip 8192
user_stack_top:
	.skip 8192
ist_stack_top:
