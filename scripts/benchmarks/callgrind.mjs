// The native path under callgrind, which counts instructions: a noisy machine does not change them.
import { spawnSync } from 'node:child_process';

const FEW = 20_000;
const MANY = 60_000;

/** Does `operations` I/Os of `what` (see bench_path --count); the profile goes to `out`. Returns what is said. */
export function callgrind(bench, what, operations, out = '/dev/null') {
  const words = ['--tool=callgrind', `--callgrind-out-file=${out}`, bench, '--count', what];
  const { error, status, stdout, stderr } = spawnSync('valgrind', [...words, '--operations', String(operations)], {
    encoding: 'utf8',
    timeout: 300_000,
  });
  if (error || status !== 0) throw new Error(`valgrind ${words.join(' ')}: ${error ?? stderr}`);
  return stdout + stderr;
}

/** Of a count for few operations and one for many, what one operation costs: setting up costs both the same. */
export function perOperation(count) {
  const [few, many] = [FEW, MANY].map(count);
  return (part) => (part(many) - part(few)) / (MANY - FEW);
}
