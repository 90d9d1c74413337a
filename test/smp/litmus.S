# Litmus tests of the memory model (SDM Vol. 3A 9.2) and of code that one processor changes while others run it (9.1.3), for machine.ts.
# In: RDI number of this processor, RSI rounds, RCX processors, RBP data. Every routine ends in HLT; R15 counts barriers; results in RESULT.

.intel_syntax noprefix
.code64

.set BARRIERS, 0x0        # 64 bytes a processor
.set RESULTS, 0x800       # 64 bytes a processor: forbidden outcomes, weak ones that are allowed
.set X, 0x1000
.set Y, 0x1100
.set LOCK, 0x1200
.set COUNTER, 0x1300
.set SECOND, 0x1340
.set FLAG, 0x1400
.set DONE, 0x1500
.set SEEN, 0x2000         # 64 bytes a processor
.set SPLIT, 0x2ffe        # across a page
.set LINE, 0x333e         # across a cache line
.set RECORD, 0x10000      # 64 KiB a processor: pairs of doublewords

.macro BARRIER
    inc r15
    mov rax, rdi
    shl rax, 6
    mov [rbp + rax + BARRIERS], r15
    xor eax, eax
771:
    cmp rax, rcx
    je 774f
    mov r14, rax
    shl r14, 6
772:
    cmp [rbp + r14 + BARRIERS], r15
    jae 773f
    pause
    jmp 772b
773:
    inc rax
    jmp 771b
774:
.endm

# A delay that differs from round to round and between processors.
.macro DELAY round
    mov rax, \round
    lea r14, [rdi + 3]
    imul rax, r14
    and eax, 31
775:
    dec eax
    jns 775b
.endm

.macro RESULT forbidden, weak
    mov rax, rdi
    shl rax, 6
    mov [rbp + rax + RESULTS], \forbidden
    mov [rbp + rax + RESULTS + 8], \weak
    hlt
.endm

# Store buffering, processors 0 and 1: each writes its variable and reads the other's. The values are the round, so nothing is reset.
.macro STORE_BUFFERING fence
    xor r12d, r12d
    xor r13d, r13d
    mov rbx, 1
    mov r8, rdi
    shl r8, 8                   # own variable: X or Y
    mov r9, r8
    xor r9, 0x100
    mov r10, rdi
    shl r10, 6
    mov r11, r10
    xor r11, 0x40
1:
    BARRIER
    DELAY rbx
    mov [rbp + r8 + X], rbx
    \fence
    mov rdx, [rbp + r9 + X]
    mov [rbp + r10 + SEEN], rdx
    BARRIER
    mov rdx, [rbp + r10 + SEEN]
    mov rax, [rbp + r11 + SEEN]
    cmp rdx, rbx
    jae 2f
    cmp rax, rbx
    jae 2f
    inc r12                     # neither saw the other's store
2:
    inc rbx
    cmp rbx, rsi
    jbe 1b
.endm

sb:
    STORE_BUFFERING nop
    RESULT r13, r12
sb_fenced:
    STORE_BUFFERING mfence
    RESULT r12, r13
.macro LOCKED_NOTHING
    lock or dword ptr [rsp], 0
.endm
sb_locked:
    STORE_BUFFERING LOCKED_NOTHING
    RESULT r12, r13

# Message passing: 0 writes data, then the flag; the others read the flag, then the data.
mp:
    xor r12d, r12d
    xor r13d, r13d
    test rdi, rdi
    jnz 2f
    mov rbx, 1
1:
    mov [rbp + X], rbx
    mov [rbp + FLAG], rbx
    inc rbx
    cmp rbx, rsi
    jbe 1b
    RESULT r12, r13
2:
    mov rax, [rbp + FLAG]
    mov rdx, [rbp + X]
    cmp rdx, rax
    adc r12, 0
    cmp rax, rsi
    jb 2b
    RESULT r12, r13

# The same where the data are written by REP STOS and read by string and vector instructions.
mp_strings:
    xor r12d, r12d
    xor r13d, r13d
    mov r11, rcx
    mov r10, rdi
    test rdi, rdi
    jnz 2f
    mov rbx, 1
1:
    lea rdi, [rbp + X]
    mov ecx, 8
    mov rax, rbx
    rep stosq
    mov [rbp + FLAG], rbx
    inc rbx
    cmp rbx, rsi
    jbe 1b
    mov rdi, r10
    RESULT r12, r13
2:
    mov rax, [rbp + FLAG]
    movdqu xmm0, [rbp + X + 48]
    mov rdx, [rbp + X + 24]
    movq r8, xmm0
    cmp rdx, rax
    adc r12, 0
    cmp r8, rax
    adc r12, 0
    cmp rax, rsi
    jb 2b
    mov rdi, r10
    RESULT r12, r13

# Independent reads of independent writes: 0 writes X, 1 writes Y, 2 reads X then Y, 3 reads Y then X, 8192 pairs each; the host compares.
iriw:
    xor r12d, r12d
    xor r13d, r13d
    BARRIER
    cmp rdi, 2
    jae 2f
    mov r8, rdi
    shl r8, 8
    mov rbx, 1
1:
    mov [rbp + r8 + X], ebx
    inc rbx
    cmp qword ptr [rbp + DONE], 2
    jb 1b
    RESULT r12, r13
2:
    mov r8, rdi
    and r8, 1
    shl r8, 8                   # read first
    mov r9, r8
    xor r9, 0x100
    mov r10, rdi
    shl r10, 16
    xor ebx, ebx
3:
    mov eax, [rbp + r8 + X]
    mov edx, [rbp + r9 + X]
    mov [rbp + r10 + RECORD], eax
    mov [rbp + r10 + RECORD + 4], edx
    add r10, 8
    inc ebx
    cmp ebx, 8192
    jb 3b
    lock inc qword ptr [rbp + DONE]
    RESULT r12, r13

# Every kind of locked addition to one counter, all processors: the host knows the sum (8 a round).
.macro INCREMENTS at
    xor r12d, r12d
    xor r13d, r13d
    BARRIER
    mov rbx, rsi
1:
    lock inc qword ptr [rbp + \at]
    mov eax, 2
    lock add [rbp + \at], rax
    lock sub dword ptr [rbp + \at], -1
    mov eax, 1
    lock xadd [rbp + \at], rax
    stc
    lock adc qword ptr [rbp + \at], 0
    stc
    lock sbb dword ptr [rbp + \at], -2
    lock dec qword ptr [rbp + \at]
2:
    mov rax, [rbp + \at]
    lea rdx, [rax + 1]
    lock cmpxchg [rbp + \at], rdx
    jne 2b
    lock add qword ptr [rbp + \at], 1
    dec rbx
    jnz 1b
    BARRIER
.endm
increments:
    INCREMENTS COUNTER
    RESULT r12, r13
# All accesses go across a line, and a page: the plain read of the loop may be torn, which the comparison finds out.
increments_split:
    INCREMENTS LINE
    INCREMENTS SPLIT
    RESULT r12, r13

# A lock by XCHG, a counter that is not locked.
spinlock:
    xor r12d, r12d
    xor r13d, r13d
    BARRIER
    mov rbx, rsi
1:
    mov eax, 1
    xchg [rbp + LOCK], eax
    test eax, eax
    jz 3f
2:
    pause
    cmp dword ptr [rbp + LOCK], 0
    jne 2b
    jmp 1b
3:
    mov rax, [rbp + COUNTER]
    cmp rax, [rbp + SECOND]
    je 4f
    inc r12
4:
    inc qword ptr [rbp + COUNTER]
    inc qword ptr [rbp + SECOND]
    mov dword ptr [rbp + LOCK], 0
    dec rbx
    jnz 1b
    RESULT r12, r13

# The same by bits: BTS takes, BTR gives back; a bit of a bit string, and a byte.
bitlock:
    xor r12d, r12d
    xor r13d, r13d
    BARRIER
    mov rbx, rsi
    mov r8d, 75
1:
    lock bts [rbp + LOCK], r8
    jnc 3f
    pause
    jmp 1b
3:
    mov rax, [rbp + COUNTER]
    cmp rax, [rbp + SECOND]
    je 4f
    inc r12
4:
    inc qword ptr [rbp + COUNTER]
    inc qword ptr [rbp + SECOND]
    lock btr [rbp + LOCK], r8
    jc 5f
    inc r12
5:
    lock btc dword ptr [rbp + LOCK], 3
    dec rbx
    jnz 1b
    RESULT r12, r13

# A pair of which the second is always three times the first.
exchange16:
    xor r12d, r12d
    xor r13d, r13d
    mov r11, rcx
    BARRIER
    mov r10, rsi
    mov r9, rbp
1:
    mov rax, [r9 + COUNTER]
    mov rdx, [r9 + COUNTER + 8]
2:
    lea rbx, [rax + 1]
    lea rcx, [rdx + 3]
    lock cmpxchg16b [r9 + COUNTER]
    lea r8, [rax + rax * 2]
    jne 3f
    jmp 4f
3:
    cmp r8, rdx                 # what it found is a pair that was there
    je 2b
    inc r12
    jmp 2b
4:
    dec r10
    jnz 1b
    mov rcx, r11
    RESULT r12, r13

exchange8:
    xor r12d, r12d
    xor r13d, r13d
    mov r11, rcx
    BARRIER
    mov r10, rsi
    mov r9, rbp
1:
    mov eax, [r9 + COUNTER]
    mov edx, [r9 + COUNTER + 4]
2:
    lea ebx, [rax + 1]
    lea ecx, [rdx + 3]
    lock cmpxchg8b [r9 + COUNTER]
    lea r8d, [rax + rax * 2]
    je 4f
    cmp r8d, edx
    je 2b
    inc r12
    jmp 2b
4:
    dec r10
    jnz 1b
    mov rcx, r11
    RESULT r12, r13

# Operands of several widths in the same eight bytes, one of them misaligned: none disturbs another. 0: low 32 bits, 1: 16 bits at 5, 2: byte 4, 3: byte 7.
mixed_word:
    xor r12d, r12d
    xor r13d, r13d
    BARRIER
    mov rbx, rsi
    cmp rdi, 1
    je 2f
    cmp rdi, 2
    je 3f
    cmp rdi, 3
    je 4f
1:
    lock inc dword ptr [rbp + COUNTER]
    dec rbx
    jnz 1b
    RESULT r12, r13
2:
    lock inc word ptr [rbp + COUNTER + 5]
    dec rbx
    jnz 2b
    RESULT r12, r13
3:
    lock inc byte ptr [rbp + COUNTER + 4]
    dec rbx
    jnz 3b
    RESULT r12, r13
4:
    lock inc byte ptr [rbp + COUNTER + 7]
    dec rbx
    jnz 4b
    RESULT r12, r13

# NOT, NEG, XOR, AND and OR, each an even number of times or on bits of this processor alone.
inversions:
    xor r12d, r12d
    xor r13d, r13d
    BARRIER
    mov rbx, rsi
    mov r8d, 1
    mov rdx, rcx
    mov ecx, edi
    shl r8, cl
    mov rcx, rdx
    mov r9, r8
    not r9
1:
    lock not qword ptr [rbp + X]
    lock neg dword ptr [rbp + Y]
    lock xor [rbp + COUNTER], r8
    lock or [rbp + SECOND], r8
    test [rbp + SECOND], r8
    jnz 2f
    inc r12
2:
    lock and [rbp + SECOND], r9
    test [rbp + SECOND], r8
    jz 3f
    inc r12
3:
    lock not qword ptr [rbp + X]
    lock neg dword ptr [rbp + Y]
    lock xor [rbp + COUNTER], r8
    dec rbx
    jnz 1b
    RESULT r12, r13

# 0 changes an instruction and raises a flag; the others wait for it, serialise, and must execute what was written. They say so with SEEN.
patched_flag:
    xor r12d, r12d
    xor r13d, r13d
    mov r11, rcx
    mov r10, rdi
    shl r10, 6
    mov r9d, 1
    test rdi, rdi
    jnz 3f
1:
    mov [rip + site_flag + 1], r9d
    mov [rbp + FLAG], r9
    mov r8d, 1
2:
    mov rax, r8
    shl rax, 6
21:
    cmp [rbp + rax + SEEN], r9
    jae 22f
    pause
    jmp 21b
22:
    inc r8
    cmp r8, r11
    jb 2b
    inc r9
    cmp r9, rsi
    jbe 1b
    RESULT r12, r13
3:
    cmp [rbp + FLAG], r9
    jae 4f
    pause
    jmp 3b
4:
    xor eax, eax
    cpuid
    call site_flag
    cmp eax, r9d
    je 5f
    inc r12
5:
    mov [rbp + r10 + SEEN], r9
    inc r9
    cmp r9, rsi
    jbe 3b
    mov rcx, r11
    RESULT r12, r13
    .balign 64
site_flag:
    .byte 0xb8                  # mov eax, imm32
    .long 0
    ret

# As Linux's text_poke_bp: INT3 over the first byte, everybody interrupted, the rest, everybody interrupted, the first byte, everybody
# interrupted. Port 0x100 interrupts all others (vector 0x30). The others execute the instruction all the time.
patched_int3:
    xor r12d, r12d
    xor r13d, r13d
    sti
    mov r11, rcx
    mov r10, rdi
    shl r10, 6
    mov r9d, 1
    test rdi, rdi
    jnz 5f
1:
    mov byte ptr [rip + site_int3], 0xcc
    call everybody
    mov [rip + site_int3 + 1], r9d
    call everybody
    mov byte ptr [rip + site_int3], 0xb8
    call everybody
    mov [rbp + DONE], r9
    inc r9
    cmp r9, rsi
    jbe 1b
    mov rcx, r11
    RESULT r12, r13
everybody:
    lock inc qword ptr [rbp + FLAG]
    mov rbx, [rbp + FLAG]
    mov dx, 0x100
    out dx, al
    mov r8d, 1
2:
    mov rax, r8
    shl rax, 6
3:
    cmp [rbp + rax + SEEN], rbx
    jae 4f
    pause
    jmp 3b
4:
    inc r8
    cmp r8, r11
    jb 2b
    ret
5:
    mov rbx, [rbp + DONE]
    call site_int3
    cmp eax, -1
    je 7f                       # came upon the INT3
    cmp eax, ebx
    jae 6f
    inc r12                     # older than what was announced as done
6:
    mov rdx, [rbp + DONE]
    inc rdx
    cmp eax, edx
    jbe 8f
    inc r12                     # newer than anything written
    jmp 8f
7:
    inc r13
    pause
8:
    mov eax, [rbp + DONE]
    cmp rax, rsi
    jb 5b
    mov rcx, r11
    # Whoever is done must still answer.
    RESULT r12, r13
    .balign 64
site_int3:
    .byte 0xb8
    .long 0
    ret

    .globl breakpoint, interrupt
# Continues behind the instruction whose first byte was INT3.
breakpoint:
    mov eax, -1
    add qword ptr [rsp], 4
    iretq
# Answers with the request's number; RDI holds the processor's.
interrupt:
    push rax
    push rdx
    mov rax, rdi
    shl rax, 6
    mov rdx, [rbp + FLAG]
    mov [rbp + rax + SEEN], rdx
    pop rdx
    pop rax
    iretq

# 0 writes a function into the next of 16 pages, all others execute it; the pages come around again.
fresh_pages:
    xor r12d, r12d
    xor r13d, r13d
    mov r11, rcx
    mov r10, rdi
    shl r10, 6
    mov r9d, 1
1:
    mov rbx, r9
    and ebx, 15
    shl rbx, 12
    lea rbx, [rbp + rbx + 0x80000]
    test rdi, rdi
    jnz 3f
    # Data first, by the fast path where the page is open.
    mov [rbx + 0x800], r9
    mov [rbx + 0x808], r9
    mov eax, r9d
    shl rax, 8
    mov al, 0xb8
    mov [rbx], rax              # mov eax, imm32
    mov byte ptr [rbx + 5], 0xc3
    mov [rbp + FLAG], r9
    mov r8d, 1
2:
    mov rax, r8
    shl rax, 6
21:
    cmp [rbp + rax + SEEN], r9
    jae 22f
    pause
    jmp 21b
22:
    inc r8
    cmp r8, r11
    jb 2b
    jmp 6f
3:
    cmp [rbp + FLAG], r9
    jae 4f
    pause
    jmp 3b
4:
    mov r8, rbx
    xor eax, eax
    cpuid
    call r8
    cmp eax, r9d
    je 5f
    inc r12
5:
    mov [rbp + r10 + SEEN], r9
6:
    inc r9
    cmp r9, rsi
    jbe 1b
    mov rcx, r11
    RESULT r12, r13

# 0 and 1 pass a function back and forth, each rewriting and then both running it, while the rest write data beside it in the same page and run
# functions of their own there.
pages_mixed:
    xor r12d, r12d
    xor r13d, r13d
    mov r11, rcx
    mov r10, rdi
    shl r10, 6
    mov r9d, 1
    lea r8, [rbp + 0x80000]
    cmp rdi, 2
    jae 5f
1:
    mov rax, r9
    and eax, 1
    cmp rax, rdi
    jne 3f
    mov [r8 + 1], r9d
    mov byte ptr [r8], 0xb8
    mov byte ptr [r8 + 5], 0xc3
    mov [rbp + FLAG], r9
3:
    cmp [rbp + FLAG], r9
    jae 4f
    pause
    jmp 3b
4:
    xor eax, eax
    cpuid
    lea r8, [rbp + 0x80000]
    call r8
    cmp eax, r9d
    je 41f
    inc r12
41:
    mov [rbp + r10 + SEEN], r9
    mov rax, r10
    xor rax, 0x40
42:
    cmp [rbp + rax + SEEN], r9
    jae 43f
    pause
    jmp 42b
43:
    inc r9
    cmp r9, rsi
    jbe 1b
    mov [rbp + DONE], r9
    mov rcx, r11
    RESULT r12, r13
5:
    mov rbx, rdi
    shl rbx, 8
    add rbx, r8                 # own function and data in the same page
    mov byte ptr [rbx], 0xb8
    mov byte ptr [rbx + 5], 0xc3
6:
    mov [rbx + 0x40], r9
    mov [rbx + 1], r9d
    call rbx
    cmp eax, r9d
    je 7f
    inc r12
7:
    cmp [rbx + 0x40], r9
    je 8f
    inc r12
8:
    inc r9
    cmp qword ptr [rbp + DONE], 0
    je 6b
    mov rcx, r11
    RESULT r12, r13

# All processors write through the same page table entries while 0 clears D and A and flushes by a locked AND: a D that was set is not lost.
# The page at 16 MiB is mapped by a table of its own at RBP + 0x4000 (machine.ts).
dirty_bits:
    xor r12d, r12d
    xor r13d, r13d
    mov r9d, 1
    mov r10, rdi
    shl r10, 6
    mov rbx, 0x1000000          # linear page of the test
1:
    BARRIER
    test rdi, rdi
    jnz 2f
    lock and qword ptr [rbp + 0x4000], ~0x60
2:
    BARRIER
    invlpg [rbx]
    BARRIER
    # One bit a processor of the entry's bits for software, and A and D by the write.
    mov r8d, 0x200
    cmp rdi, 3
    jae 3f
    mov rdx, rcx
    mov ecx, edi
    shl r8, cl
    mov rcx, rdx
    lock xor [rbp + 0x4000], r8
3:
    mov [rbx + r10], r9
    BARRIER
    mov rax, [rbp + 0x4000]
    and eax, 0x60
    cmp eax, 0x60
    je 4f
    inc r12
4:
    mov rax, [rbp + 0x4000]
    shr rax, 9
    and eax, 7
    mov edx, 7
    cmp rcx, 3
    jae 5f
    mov edx, 3
5:
    test r9, 1
    jnz 6f
    xor edx, edx
6:
    cmp eax, edx
    je 7f
    inc r12
7:
    inc r9
    cmp r9, rsi
    jbe 1b
    RESULT r12, r13
