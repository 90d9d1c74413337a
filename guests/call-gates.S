# Call gates, conforming segments and far returns of 32-bit protected mode (SDM Vol. 3A 5.8; Vol. 2A CALL, JMP; Vol. 2B RET).

#include "kernel.inc"

#define CONFORMING FREE
#define OUTER (FREE + 8)
#define GATE (FREE + 16)

# A call gate: type (8CH 32-bit, 84H 16-bit; with DPL), parameters.
.macro CALL_GATE attributes:req, count:req, selector:req, target:req
	mov $\target, %eax
	mov %ax, gdt + GATE
	movw $\selector, gdt + GATE + 2
	movw $((\attributes) << 8 | (\count)), gdt + GATE + 4
	shr $16, %eax
	mov %ax, gdt + GATE + 6
.endm

	.code32
	.globl main32
main32:
	DESCRIPTOR CONFORMING, 0x00cf9f000000ffff
	# Far calls and jumps at the same level
	xor %ebx, %ebx
	lcall $CODE32, $far_function
1:	CHECK32 "far call", %ebx, $CODE32
	CHECK32 "its return address", %ecx, $1b
	FAULTS32 "far call to data", GP, DATA, lcall $DATA, $far_function
	FAULTS32 "far call to the null selector", GP, 0, lcall $0, $far_function
	FAULTS32 "far call to DPL 3", GP, 0x30, lcall $0x30, $far_function
	FAULTS32 "far call with RPL 3", GP, CODE32, lcall $(CODE32 | 3), $far_function
	FAULTS32 "far jump to DPL 3", GP, 0x30, ljmp $USER_CODE32, $far_function
	DESCRIPTOR OUTER, 0x00cf1b000000ffff
	FAULTS32 "far call to code that is not present", NP, OUTER, lcall $OUTER, $far_function
	# Conforming code keeps CPL
	lcall $CONFORMING, $far_function
	CHECK32 "call to conforming code at CPL 0", %ebx, $CONFORMING
	TRY32
	ENTER_USER32
	lcall $CONFORMING, $far_function
	LEAVE_USER
	END_TRY32
	CHECK32 "call to conforming code at CPL 3: no fault", fault_vector, $-1
	CHECK32 "runs at CPL 3", %ebx, $(CONFORMING | 3)
	USER_FAULTS32 "non-conforming code of CPL 0", GP, CODE32, lcall $CODE32, $far_function

	# Through a gate at the same level
	CALL_GATE 0x8c, 0, CODE32, far_function
	lcall $GATE, $0x12345678
2:	CHECK32 "gate at the same level", %ebx, $CODE32
	CHECK32 "return address of a gate call", %ecx, $2b
	USER_FAULTS32 "gate of DPL 0 at CPL 3", GP, GATE, lcall $GATE, $0
	# Inwards, with three parameters
	CALL_GATE 0xec, 3, CODE32, inner_function
	mov %esp, %ebp
	ENTER_USER32
	mov %esp, %ebp
	push $0x111
	push $0x222
	push $0x333
	lcall $GATE, $0
3:	mov %esp, %edx
	mov %cs, %esi
	mov %ss, %edi
	LEAVE_USER
	CHECK32 "CS inside", seen_cs, $CODE32
	CHECK32 "SS inside", seen_ss, $DATA
	CHECK32 "return EIP on the inner stack", seen_stack, $3b
	CHECK32 "return CS", seen_stack + 4, $USER_CODE32
	CHECK32 "parameter 3", seen_stack + 8, $0x333
	CHECK32 "parameter 2", seen_stack + 12, $0x222
	CHECK32 "parameter 1", seen_stack + 16, $0x111
	mov $user_stack_top - 12, %eax
	CHECK32 "outer ESP", seen_stack + 20, %eax
	CHECK32 "outer SS", seen_stack + 24, $USER_DATA
	mov $ring0_stack_top - 28, %eax
	CHECK32 "inner ESP", seen_esp, %eax
	mov $user_stack_top, %eax
	CHECK32 "RET n drops the parameters of both stacks", %edx, %eax
	CHECK32 "CS outside", %esi, $USER_CODE32
	CHECK32 "SS outside", %edi, $USER_DATA
	# A 16-bit gate pushes words: its target lies below 64 KiB
	CALL_GATE 0xe4, 1, CODE32, inner16
	ENTER_USER32
	pushw $0x4321
	mov %cs, %ebx
	# (the return offset is cut to 16 bits, so that the caller lies below 64 KiB too)
	call low_caller
	LEAVE_USER
	movzwl seen_stack, %eax
	CHECK32 "return IP of a 16-bit gate", %eax, $low_return
	movzwl seen_stack + 2, %eax
	CHECK32 "return CS of a 16-bit gate", %eax, $USER_CODE32
	movzwl seen_stack + 6, %eax
	CHECK32 "outer SP of a 16-bit gate", %eax, seen_sp
	# Checks of the gate
	andb $0x7f, gdt + GATE + 5
	FAULTS32 "gate that is not present", NP, GATE, lcall $GATE, $0
	CALL_GATE 0xec, 0, DATA, inner_function
	FAULTS32 "gate to data", GP, DATA, lcall $GATE, $0
	CALL_GATE 0xec, 0, 0, inner_function
	FAULTS32 "gate to the null selector", GP, 0, lcall $GATE, $0
	CALL_GATE 0xec, 0, 0x30, inner_function
	FAULTS32 "gate outwards", GP, 0x30, lcall $GATE, $0
	CALL_GATE 0xec, 0, CODE32, inner_function
	USER_FAULTS32 "JMP through a gate inwards", GP, CODE32, ljmp $GATE, $0
	CALL_GATE 0xec, 0, CONFORMING, far_jumped
	TRY32
	ENTER_USER32
	ljmp $GATE, $0
far_jumped_back:
	LEAVE_USER
	END_TRY32
	CHECK32 "JMP through a gate to conforming code", %ebx, $(CONFORMING | 3)
	CALL_GATE 0xee, 0, CODE32, inner_function
	FAULTS32 "interrupt gate in the GDT", GP, GATE, lcall $GATE, $0
	CALL_GATE 0xec, 0, CODE32, inner_function
	# Far returns outwards check what they load
	.macro RETF_FAULTS name:req, vector:req, error:req, cs:req, ss:req
	TRY32
	pushl $\ss
	pushl $user_stack_top
	pushl $\cs
	pushl $main32
8701:	lret
	END_TRY32
	EXPECT32 "\name", \vector, \error, 8701b
	.endm
	RETF_FAULTS "RET to the null selector", GP, 0, 0, USER_DATA
	RETF_FAULTS "RET to data", GP, DATA, DATA, USER_DATA
	RETF_FAULTS "RET to RPL other than DPL", GP, CODE32, (CODE32 | 3), USER_DATA
	RETF_FAULTS "RET outwards with a null SS", GP, 0, USER_CODE32, 0
	RETF_FAULTS "RET outwards with SS of DPL 0", GP, DATA, USER_CODE32, DATA
	RETF_FAULTS "RET outwards with SS of RPL 0", GP, 0x38, USER_CODE32, 0x38
	DESCRIPTOR OUTER, 0x00cf7b000000ffff
	RETF_FAULTS "RET to code that is not present", NP, OUTER, (OUTER | 3), USER_DATA
	DESCRIPTOR OUTER, 0x00cf73000000ffff
	RETF_FAULTS "RET outwards with SS that is not present", SS_, OUTER, USER_CODE32, (OUTER | 3)
	TRY32
	ENTER_USER32
	pushl $CODE32
	pushl $main32
8701:	lret
	END_TRY32
	EXPECT32 "RET inwards", GP, CODE32, 8701b
	# Data segments of an inner level become null on the way out
	mov $DATA, %eax
	mov %eax, %fs
	mov $USER_DATA, %eax
	mov %eax, %gs
	mov %esp, user_return_rsp
	pushl $USER_DATA
	pushl $user_stack_top
	pushl $USER_CODE32
	pushl $4f
	lret
4:	mov %fs, %ebx
	mov %gs, %ecx
	LEAVE_USER
	CHECK32 "FS of DPL 0 becomes null", %ebx, $0
	CHECK32 "GS of DPL 3 stays", %ecx, $USER_DATA
	# ARPL
	mov $DATA, %eax
	mov $3, %ecx
	arpl %cx, %ax
	setz %bl
	movzbl %bl, %ebx
	CHECK32 "ARPL raises RPL", %eax, $(DATA | 3)
	CHECK32 "and sets ZF", %ebx, $1
	mov $1, %ecx
	arpl %cx, %ax
	setz %bl
	movzbl %bl, %ebx
	CHECK32 "ARPL leaves a higher RPL", %eax, $(DATA | 3)
	CHECK32 "and clears ZF", %ebx, $0
	ret

far_function:
	mov %cs, %ebx
	mov (%esp), %ecx
	lret

far_jumped:
	mov %cs, %ebx
	ljmp $USER_CODE32, $far_jumped_back

inner_function:
	push %eax
	push %ds
	mov $DATA, %eax
	mov %eax, %ds
	mov %cs, seen_cs
	mov %ss, seen_ss
	lea 8(%esp), %eax
	mov %eax, seen_esp
	lea 8(%esp), %esi
	mov $seen_stack, %edi
	push %ecx
	mov $7, %ecx
	rep movsl
	pop %ecx
	pop %ds
	pop %eax
	lret $12

	.section .low.text, "ax"
	.code32
low_caller:
	mov %esp, seen_sp
	andl $0xffff, seen_sp
	lcall $GATE, $0
low_return:
	mov $user_stack_top - 6, %esp
	ret
inner16:
	mov %ss:(%esp), %eax
	mov %eax, %ss:seen_stack
	mov %ss:4(%esp), %eax
	mov %eax, %ss:seen_stack + 4
	data16 lret $2

	.data
	.balign 4
seen_cs:	.long 0
seen_ss:	.long 0
seen_esp:	.long 0
seen_sp:	.long 0
seen_stack:	.fill 8, 4, 0
