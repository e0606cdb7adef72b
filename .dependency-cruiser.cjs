const production = '^(contracts|lib|mixins|services|moleculer\\.config\\.ts)(/|$)';
const dashboard = '^services/admin/dashboard/';

/** Who may import whom. test/support/architecture-canary breaks each rule once, to prove that each works. */
module.exports = {
  forbidden: [
    {
      name: 'services-never-import-services',
      comment: 'Services meet in contracts/: call an action or emit an event instead.',
      severity: 'error',
      from: { path: '^services/([^/]+)/', pathNot: dashboard },
      to: { dependencyTypes: ['local'], pathNot: '^(services/$1|contracts|lib|mixins)/' },
    },
    {
      name: 'contracts-import-only-zod',
      comment: 'Clients take contracts/ too, so nothing of the server may hang on it.',
      severity: 'error',
      from: { path: '^contracts/' },
      to: { pathNot: '(^contracts/|(^|/)node_modules/zod/)' },
    },
    {
      name: 'mobile-imports-only-contracts',
      comment: 'Of the server the app knows contracts/ and nothing else.',
      severity: 'error',
      from: { path: '^mobile/' },
      to: { dependencyTypes: ['local'], pathNot: '^(mobile|contracts)/' },
    },
    {
      name: 'dashboard-imports-only-contracts',
      comment: 'Of the server the web app knows contracts/ and nothing else.',
      severity: 'error',
      from: { path: dashboard },
      to: { dependencyTypes: ['local'], pathNot: `(${dashboard}|^contracts/)` },
    },
    {
      name: 'server-imports-no-client',
      comment: 'The server serves what the web app was built into; it runs none of it.',
      severity: 'error',
      from: { path: production, pathNot: dashboard },
      to: { path: `(^mobile/|${dashboard})` },
    },
    {
      name: 'lib-imports-no-service-or-mixin',
      comment: 'lib/ lies below: small and pure.',
      severity: 'error',
      from: { path: '^lib/' },
      to: { path: '^(services|mixins)/' },
    },
    {
      name: 'mixins-import-no-service',
      comment: 'A mixin serves any service, so it knows none.',
      severity: 'error',
      from: { path: '^mixins/' },
      to: { path: '^services/' },
    },
    {
      name: 'production-never-imports-test',
      comment: 'Stand-ins that npm start needs live in lib/standins.',
      severity: 'error',
      from: { path: production },
      to: { path: '^test/' },
    },
    {
      name: 'production-needs-no-dev-dependency',
      comment: 'It is not installed in production. The web app is bundled before, and types are erased.',
      severity: 'error',
      from: { path: production, pathNot: dashboard },
      to: { dependencyTypes: ['npm-dev'], dependencyTypesNot: ['type-only', 'npm'] },
    },
    {
      name: 'no-cycles',
      comment: 'Files that need each other are one thing, or lack a third.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'imports-resolve',
      comment: 'No such file or package.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    // Imports of types count as well: they tie two files together
    tsPreCompilationDeps: true,
    exclude: { path: '(^|/)architecture-canary/' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
      extensions: ['.ts', '.tsx', '.js', '.mjs', '.cjs', '.d.ts', '.json'],
    },
  },
};
