import { defineConfig } from 'vitest/config';

const nightly = process.env.SM_NIGHTLY === '1';

// Tests of the package import 'stratamap', which is dist/ with the built addon: what users get. Tests of one module
// import it from lib/. `external` keeps the two apart: what is in dist/ is loaded by Node itself.
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    testTimeout: nightly ? 3_600_000 : 120_000,
    hookTimeout: nightly ? 600_000 : 120_000,
    server: { deps: { external: [/\/dist\//] } },
  },
});
