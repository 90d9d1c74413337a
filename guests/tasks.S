# Task switches: by JMP, CALL, IRET, interrupts and exceptions, directly and through task gates (SDM Vol. 3A 7.2, 7.3, 7.4).

#include "kernel.inc"

#define TASK FREE
#define GATE (FREE + 8)
#define TASK2 (FREE + 16)
#define LDT (FREE + 24)
# Fields of the 32-bit TSS (figure 7-2)
#define T_CR3 0x1c
#define T_EIP 0x20
#define T_EFLAGS 0x24
#define T_EAX 0x28
#define T_ECX 0x2c
#define T_EDX 0x30
#define T_EBX 0x34
#define T_ESP 0x38
#define T_EBP 0x3c
#define T_ESI 0x40
#define T_EDI 0x44
#define T_ES 0x48
#define T_CS 0x4c
#define T_SS 0x50
#define T_DS 0x54
#define T_FS 0x58
#define T_GS 0x5c
#define T_LDT 0x60
#define T_TRAP 0x64

.macro TSS_DESCRIPTOR selector:req, tss:req
	mov $\tss, %eax
	movw $0x67, gdt + (\selector)
	mov %ax, gdt + (\selector) + 2
	shr $16, %eax
	mov %al, gdt + (\selector) + 4
	movb $0x89, gdt + (\selector) + 5
	movb $0, gdt + (\selector) + 6
	mov %ah, gdt + (\selector) + 7
.endm
.macro PREPARE tss:req, entry:req, stack:req
	mov $\tss, %edi
	xor %eax, %eax
	mov $26, %ecx
	rep stosl
	movl $\entry, \tss + T_EIP
	movl $2, \tss + T_EFLAGS
	movl $\stack, \tss + T_ESP
	movl $CODE32, \tss + T_CS
	movl $DATA, \tss + T_SS
	movl $DATA, \tss + T_DS
	movl $DATA, \tss + T_ES
	movl $DATA, \tss + T_FS
	movl $DATA, \tss + T_GS
	movw $0x68, \tss + 0x66
.endm
.macro TYPE_IS name:req, selector:req, want:req
	movzbl gdt + (\selector) + 5, %eax
	CHECK32 "\name", %eax, $\want
.endm

	.code32
	.globl main32
main32:
	call calls
	call jumps
	call interrupts
	call faults
	ret

calls:
	PREPARE task, callee, user_stack_top
	TSS_DESCRIPTOR TASK, task
	movl $0x11, task + T_EAX
	movl $0x22, task + T_EBX
	movl $0x55, task + T_EBP
	movl $0x77, task + T_EDI
	mov $0xaaaa, %eax
	mov $0xbbbb, %ebx
	mov $0xcccc, %ecx
	mov $0xdddd, %edx
	mov $0x5151, %esi
	mov $0xd1d1, %edi
	mov $0xb9b9, %ebp
	stc
	lcall $TASK, $0
1:	pushf
	pop seen_flags_back
	CHECK32 "EAX is back", %eax, $0xaaaa
	CHECK32 "EBX is back", %ebx, $0xbbbb
	CHECK32 "ECX is back", %ecx, $0xcccc
	CHECK32 "EDX is back", %edx, $0xdddd
	CHECK32 "ESI is back", %esi, $0x5151
	CHECK32 "EDI is back", %edi, $0xd1d1
	CHECK32 "EBP is back", %ebp, $0xb9b9
	mov seen_flags_back, %eax
	and $(FL_CF | FL_NT), %eax
	CHECK32 "CF is back, NT is clear", %eax, $FL_CF
	CHECK32 "EAX of the task", seen_eax, $0x11
	CHECK32 "EBX of the task", seen_ebx, $0x22
	CHECK32 "EBP of the task", seen_ebp, $0x55
	CHECK32 "EDI of the task", seen_edi, $0x77
	CHECK32 "ESP of the task", seen_esp, $user_stack_top
	CHECK32 "TR inside", seen_tr, $TASK
	mov seen_flags, %eax
	and $(FL_NT | FL_CF), %eax
	CHECK32 "NT inside", %eax, $FL_NT
	movzwl task, %eax
	CHECK32 "link to the task that called", %eax, $TSS32
	movzbl seen_type, %eax
	CHECK32 "the caller stays busy", %eax, $0x8b
	movzbl seen_type + 1, %eax
	CHECK32 "the task is busy inside", %eax, $0x8b
	TYPE_IS "IRET makes the task available", TASK, 0x89
	TYPE_IS "the caller is busy again", TSS32, 0x8b
	str %eax
	CHECK32 "TR is back", %eax, $TSS32
	CHECK32 "EIP saved for the caller", tss32 + T_EIP, $1b
	mov %cr0, %eax
	and $CR0_TS, %eax
	CHECK32 "CR0.TS is set", %eax, $CR0_TS
	clts
	# The task goes on behind its IRET when it is called again
	movl $0, seen_eax
	lcall $TASK, $0
	CHECK32 "the second call goes on behind IRET", seen_eax, $0x999
	ret

callee:
	mov %eax, seen_eax
	mov %ebx, seen_ebx
	mov %ebp, seen_ebp
	mov %edi, seen_edi
	mov %esp, seen_esp
	str %eax
	mov %eax, seen_tr
	pushf
	pop seen_flags
	mov gdt + TSS32 + 5, %al
	mov %al, seen_type
	mov gdt + TASK + 5, %al
	mov %al, seen_type + 1
	iret
	movl $0x999, seen_eax
	iret

jumps:
	PREPARE task, jumped, user_stack_top
	TSS_DESCRIPTOR TASK, task
	# Through a task gate
	DESCRIPTOR GATE, (0x0000850000000000 | TASK << 16)
	ljmp $GATE, $0
2:	TYPE_IS "JMP leaves the old task available", TASK, 0x89
	movzbl seen_type, %eax
	CHECK32 "JMP made the first task available", %eax, $0x89
	mov seen_flags, %eax
	and $FL_NT, %eax
	CHECK32 "JMP does not set NT", %eax, $0
	CHECK32 "TR inside", seen_tr, $TASK
	movzwl task, %eax
	CHECK32 "JMP writes no link", %eax, $0
	ret
jumped:
	pushf
	pop seen_flags
	str %eax
	mov %eax, seen_tr
	mov gdt + TSS32 + 5, %al
	mov %al, seen_type
	ljmp $TSS32, $0

interrupts:
	# INT through a task gate
	PREPARE task, interrupt_task, user_stack_top
	TSS_DESCRIPTOR TASK, task
	GATE32 200, 0x85, TASK, 0
	movl $0, entries
	int $200
	CHECK32 "INT through a task gate", entries, $1
	int $200
	CHECK32 "and again: the loop of the task goes on", entries, $2
	# An exception with an error code: it is pushed on the new stack
	PREPARE task2, fault_task, ist_stack_top
	TSS_DESCRIPTOR TASK2, task2
	GATE32 GP, 0x85, TASK2, 0
	mov $0x1f8, %ecx
3:	mov %ecx, %fs
4:	CHECK32 "error code on the stack of the task", seen_error, $0x1f8
	CHECK32 "EIP saved for the task that faulted", seen_eip, $3b
	movl $0, entries
	mov $0x1f8, %ecx
5:	mov %ecx, %fs
	CHECK32 "#GP through the task gate again", entries, $1
	USUAL_GATE32 GP
	# From CPL 3: the gate's DPL counts for INT
	GATE32 200, 0x85, TASK, 0
	movl $0, entries
	USER_FAULTS32 "INT at CPL 3 through a task gate of DPL 0", GP, (200 * 8 + 2), int $200
	GATE32 200, 0xe5, TASK, 0
	TRY32
	ENTER_USER32
	mov $0x1234, %ebx
	int $200
	LEAVE_USER
	END_TRY32
	CHECK32 "INT at CPL 3 through a task gate of DPL 3", entries, $1
	CHECK32 "EBX is back at CPL 3", %ebx, $0x1234
	clts
	ret
interrupt_task:
	incl entries
	iret
	jmp interrupt_task
fault_task:
	pop seen_error
	incl entries
	mov tss32 + T_EIP, %eax
	mov %eax, seen_eip
	mov tss32 + T_EFLAGS, %eax
	mov %eax, seen_flags
	# Step over the two bytes of MOV
	addl $2, tss32 + T_EIP
	iret
	jmp fault_task

faults:
	PREPARE task, callee, user_stack_top
	TSS_DESCRIPTOR TASK, task
	# Checks of the TSS descriptor: in the old task
	movb $0x8b, gdt + TASK + 5
	FAULTS32 "JMP to a busy task", GP, TASK, ljmp $TASK, $0
	movb $0x09, gdt + TASK + 5
	FAULTS32 "JMP to a task that is not present", NP, TASK, ljmp $TASK, $0
	movb $0x89, gdt + TASK + 5
	movw $0x66, gdt + TASK
	FAULTS32 "TSS with a limit below 67H", TS, TASK, ljmp $TASK, $0
	movw $0x67, gdt + TASK
	FAULTS32 "JMP to the task itself", GP, TSS32, ljmp $TSS32, $0
	DESCRIPTOR GATE, (0x0000050000000000 | TASK << 16)
	FAULTS32 "task gate that is not present", NP, GATE, ljmp $GATE, $0
	DESCRIPTOR GATE, (0x0000850000000000 | DATA << 16)
	FAULTS32 "task gate to data", GP, DATA, ljmp $GATE, $0
	USER_FAULTS32 "TSS of DPL 0 at CPL 3", GP, TASK, ljmp $TASK, $0
	# IRET with NT and a bad link: #TS
	movw $DATA, tss32
	pushl $(FL_NT | 2)
	popfl
	FAULTS32 "IRET to a link that is no TSS", TS, DATA, iretl
	movw $TASK, tss32
	pushl $(FL_NT | 2)
	popfl
	FAULTS32 "IRET to a task that is not busy", TS, TASK, iretl
	pushl $2
	popfl
	# Checks of the new task's segments: in the new task, with the return address its first instruction. The handlers are task gates.
	PREPARE task2, catch_task, ist_stack_top
	TSS_DESCRIPTOR TASK2, task2
	GATE32 TS, 0x85, TASK2, 0
	GATE32 NP, 0x85, TASK2, 0
	GATE32 SS_, 0x85, TASK2, 0
	GATE32 GP, 0x85, TASK2, 0
	.macro BAD_TASK name:req, field:req, value:req, error:req
	PREPARE task, callee, user_stack_top
	TSS_DESCRIPTOR TASK, task
	movl $\value, task + \field
	movl $-1, seen_error
	movb $0x8b, gdt + TSS32 + 5
	lcall $TASK, $0
	CHECK32 "\name", seen_error, $\error
	CHECK32 "\name: in the new task", seen_tr, $TASK
	.endm
	BAD_TASK "CS is null", T_CS, 0, 0
	BAD_TASK "CS is data", T_CS, DATA, DATA
	BAD_TASK "SS is null", T_SS, 0, 0
	BAD_TASK "SS of another level", T_SS, USER_DATA, 0x38
	BAD_TASK "DS is a system segment", T_DS, TSS32, TSS32
	BAD_TASK "GS beyond the GDT", T_GS, 0x200, 0x200
	BAD_TASK "LDT is no LDT", T_LDT, DATA, DATA
	USUAL_GATE32 TS
	USUAL_GATE32 NP
	USUAL_GATE32 SS_
	USUAL_GATE32 GP
	# The T flag: #DB with DR6.BT, in the new task
	PREPARE task, callee, user_stack_top
	TSS_DESCRIPTOR TASK, task
	movw $1, task + T_TRAP
	xor %eax, %eax
	mov %eax, %dr6
	GATE32 DB, 0x8e, CODE32, debug_trap
	lcall $TASK, $0
	CHECK32 "T flag: EIP of #DB", seen_eip, $callee
	mov %dr6, %eax
	and $0x8000, %eax
	CHECK32 "DR6.BT", %eax, $0x8000
	USUAL_GATE32 DB
	# A 16-bit TSS (figure 7-10)
	mov $task16, %edi
	xor %eax, %eax
	mov $22, %ecx
	rep stosw
	movw $CODE32, task16 + 36
	movw $DATA, task16 + 38
	movw $DATA, task16 + 40
	movw $DATA, task16 + 34
	movw $2, task16 + 16
	movw $0x1111, task16 + 18
	movw $0x7ff0, task16 + 26
	mov $low_entry, %eax
	mov %ax, task16 + 14
	TSS_DESCRIPTOR TASK, task16
	movw $43, gdt + TASK
	movb $0x81, gdt + TASK + 5
	lcall $TASK, $0
	movzwl seen_eax, %eax
	CHECK32 "AX of a 16-bit task", %eax, $0x1111
	CHECK32 "TR of a 16-bit task", seen_tr, $TASK
	TYPE_IS "16-bit task available again", TASK, 0x81
	clts
	ret

debug_trap:
	mov (%esp), %eax
	mov %eax, %ss:seen_eip
	iret

catch_task:
	pop seen_error
	str %eax
	mov task2, %ax
	movzwl %ax, %eax
	mov %eax, seen_tr
	# Back to the first task: its link is in the task that failed, which is left as the one that called
	movw $TSS32, task2
	pushl $(FL_NT | 2)
	popfl
	movb $0x8b, gdt + TSS32 + 5
	iret
	jmp catch_task

	.section .low.text, "ax"
	.code32
low_entry:
	mov %eax, %ds:seen_eax
	str %eax
	mov %eax, %ds:seen_tr
	iret

	.data
	.balign 4
seen_eax:	.long 0
seen_ebx:	.long 0
seen_ebp:	.long 0
seen_edi:	.long 0
seen_esp:	.long 0
seen_tr:	.long 0
seen_eip:	.long 0
seen_error:	.long 0
seen_flags:	.long 0
seen_flags_back:	.long 0
seen_type:	.long 0
entries:	.long 0
	.balign 128
task:	.fill 128, 1, 0
task2:	.fill 128, 1, 0
task16:	.fill 128, 1, 0
