# What a Linux guest does in the system tests, run by /init of the initramfs (busybox sh). Prints `ok NAME` or `FAIL NAME: why` for each
# check and `SUITE DONE` at the end. The host gives in /suite: pattern (random bytes, which it also wrote to the disk at 56 MiB),
# fpcheck (a static program) and fpcheck.expected (what it printed on the host).

ok() { echo "ok $1"; }
bad() { echo "FAIL $1: $2"; }
# check NAME ACTUAL EXPECTED
check() { if [ "$2" = "$3" ]; then ok "$1"; else bad "$1" "got '$2', expected '$3'"; fi; }
sum() { sha256sum "$@" | cut -d' ' -f1; }

cd /tmp

# Processes
check exit-status "$(sh -c 'exit 37'; echo $?)" 37
check exec "$(exec echo replaced)" replaced
i=0
while [ $i -lt 40 ]; do
  (exit $((i % 7))) &
  i=$((i + 1))
done
total=0
for job in $(jobs -p); do
  wait "$job"
  total=$((total + $?))
done
check forty-children "$total" 115
check zombies-reaped "$(ps -o stat | grep -c '^Z')" 0
sleep 60 &
child=$!
# The child takes its name some time after it was forked.
i=0
while [ "$(cat /proc/$child/comm)" != sleep ] && [ $i -lt 100 ]; do
  sleep 0.1
  i=$((i + 1))
done
check proc-of-child "$(cat /proc/$child/comm)" sleep
check parent-of-child "$(awk '/^PPid/ { print $2 }' /proc/$child/status)" $$
kill $child
wait $child 2>/dev/null
check recursion "$(f() { if [ "$1" -le 1 ]; then echo 1; else echo $(($1 * $(f $(($1 - 1))))); fi; }; f 10)" 3628800

# Signals
got=
trap 'got="$got usr1"' USR1
trap 'got="$got usr2"' USR2
kill -USR1 $$
kill -USR2 $$
kill -USR1 $$
check signal-handlers "$got" " usr1 usr2 usr1"
trap - USR1 USR2
sleep 60 &
kill -KILL $!
wait $! 2>/dev/null
check kill-status $? 137
sh -c 'trap "exit 5" TERM; while :; do sleep 0.05; done' &
child=$!
sleep 0.3
kill -TERM $child
wait $child
check term-handler $? 5
sleep 60 &
child=$!
kill -STOP $child
sleep 0.1
stopped=$(awk '{ print $3 }' /proc/$child/stat)
kill -CONT $child
sleep 0.1
running=$(awk '{ print $3 }' /proc/$child/stat)
kill $child
wait $child 2>/dev/null
check stop-and-continue "$stopped$running" TS
timeout 1 sleep 20
check alarm $? 143
check sigpipe "$(yes 2>/dev/null | head -n 2 | tr -d '\n')" yy
echo 'int' >/dev/null
sh -c 'kill -SEGV $$' 2>/dev/null
check fatal-signal $? 139

# Pipes
check pipeline "$(seq 1 5000 | sort -n -r | awk '{ s += $1 } END { print s, NR }')" "12502500 5000"
check pipe-bulk "$(dd if=/dev/zero bs=64k count=64 2>/dev/null | cat | cat | sum)" bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8
mkfifo fifo
(cat /suite/pattern >fifo) &
check named-pipe "$(sum <fifo)" "$(sum /suite/pattern)"
wait
check sort "$(seq 1 3000 | awk '{ print ($1 * 7919) % 3001 }' | sort -n | md5sum | cut -d' ' -f1)" "$(seq 1 3000 | md5sum | cut -d' ' -f1)"

# Files in memory
check tmpfs-type "$(stat -f -c %T /tmp)" tmpfs
mkdir -p a/b/c
for i in 1 2 3 4 5 6 7 8; do cp /suite/pattern a/b/c/$i; done
check tmpfs-copies "$(cat a/b/c/* | wc -c)" $((8 * $(wc -c </suite/pattern)))
ln -s b/c/3 a/link
ln a/b/c/4 a/hard
check symlink "$(sum a/link)" "$(sum /suite/pattern)"
check hard-link "$(stat -c %h a/hard)" 2
mv a/b/c/5 a/moved
check rename "$([ -e a/b/c/5 ] || sum a/moved)" "$(sum /suite/pattern)"
chmod 640 a/moved
check mode "$(stat -c %a a/moved)" 640
dd if=/dev/zero of=a/sparse bs=1 count=1 seek=10000000 2>/dev/null
check sparse "$(stat -c '%s' a/sparse) $(du -k a/sparse | cut -f1)" "10000001 4"
find a -type f | wc -l >count
check find "$(cat count)" 10
rm -r a
check removed "$(ls -d a 2>/dev/null)" ""
gzip -c /suite/pattern | gunzip -c >unzipped
check gzip "$(sum unzipped)" "$(sum /suite/pattern)"

# Checksums of known data (FIPS 180-4's examples)
check sha256-abc "$(printf abc | sum)" ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
check sha256-two-blocks "$(printf abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq | sum)" 248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1
check sha256-million "$(yes a | tr -d '\n' | head -c 1000000 | sum)" cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0
check sha512-abc "$(printf abc | sha512sum | cut -c1-32)" ddaf35a193617abacc417349ae204131
check pattern "$(sum /suite/pattern)" "$(cat /suite/pattern.sha256)"

# Floating point
check awk-double "$(awk 'BEGIN { printf "%.17g %.17g %.6e", 1 / 3, 0.1 * 3, 1e300 * 3 / 7 }')" "0.33333333333333331 0.30000000000000004 4.285714e+299"
/suite/fpcheck >fp.out
if cmp -s fp.out /suite/fpcheck.expected; then
  ok floating-point
else
  bad floating-point "$(diff fp.out /suite/fpcheck.expected | grep -c '^[-+<>]') lines differ"
  diff /suite/fpcheck.expected fp.out | head -n 20
fi

# Time
before=$(cut -d' ' -f1 /proc/uptime)
sleep 1
after=$(cut -d' ' -f1 /proc/uptime)
check sleep "$(awk "BEGIN { d = $after - $before; print (d >= 0.98 && d < 5) }")" 1
check clock "$([ "$(date +%s)" -gt 1600000000 ] && echo set)" set
echo "info clocksource $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"

# Entropy
check urandom "$(dd if=/dev/urandom bs=4096 count=4 2>/dev/null | wc -c)" 16384
if [ -e /dev/hwrng ] && [ "$(cat /sys/class/misc/hw_random/rng_current)" != none ]; then
  check hwrng "$(dd if=/dev/hwrng bs=512 count=1 2>/dev/null | wc -c)" 512
fi

# A disk
if [ -b /dev/vda ]; then
  size=$(stat -c %s /suite/pattern)
  check disk-size "$(blockdev --getsize64 /dev/vda)" 67108864
  # Through dd, since a read of the device by another path may be answered from the cache.
  dd if=/dev/vda of=from-disk bs=4096 skip=14336 count=$((size / 4096)) 2>/dev/null
  check disk-read "$(sum from-disk)" "$(sum /suite/pattern)"
  mke2fs /dev/vda 32768 >/dev/null 2>&1
  check mke2fs $? 0
  mkdir -p /mnt/disk
  mount -t ext4 /dev/vda /mnt/disk
  check mount $? 0
  check mounted "$(awk '$2 == "/mnt/disk" { print $1, $3 }' /proc/mounts)" "/dev/vda ext4"
  mkdir /mnt/disk/folder
  for i in 1 2 3 4; do cp /suite/pattern /mnt/disk/folder/$i; done
  echo "written by the guest" >/mnt/disk/folder/note
  rm /mnt/disk/folder/2
  sync
  umount /mnt/disk
  check umount $? 0
  echo 3 >/proc/sys/vm/drop_caches
  mount -t ext4 -o ro /dev/vda /mnt/disk
  check read-back "$(cat /mnt/disk/folder/1 /mnt/disk/folder/3 /mnt/disk/folder/4 | sum)" "$(cat /suite/pattern /suite/pattern /suite/pattern | sum)"
  check note "$(cat /mnt/disk/folder/note)" "written by the guest"
  check listing "$(ls /mnt/disk/folder | tr '\n' ' ')" "1 3 4 note "
  umount /mnt/disk
  # The host reads these bytes back from the image: the pattern turned round, at 48 MiB.
  dd if=/suite/pattern.reversed of=/dev/vda bs=4096 seek=12288 conv=fsync,notrunc 2>/dev/null
  check disk-write $? 0
else
  echo "skip disk: there is no /dev/vda"
fi

# What the kernel said about all this
complaints=$(dmesg | grep -E 'BUG:|Oops|WARNING:|Call Trace|soft lockup|unstable|blocked for more|I/O error|rcu.*stall|nobody cared')
check kernel-log "$complaints" ""

echo "SUITE DONE"
