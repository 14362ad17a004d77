# trigger_idem: see README.md for the two commands that do all the set-up.

EXTENSION = trigger_idem
EXTVERSION = 0.1.0
MODULE_big = trigger_idem
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

# The install script, in this order: tables before what refers to them.
SQL_PARTS = schema status access environment key task run trigger step wait work application control schedule prune \
	progress views timeline html page list stats privilege
DATA_built = $(EXTENSION)--$(EXTVERSION).sql
# Released versions and the ways to newer ones; the present one is built
DATA = $(filter-out src/upgrade/$(DATA_built),$(wildcard src/upgrade/*.sql))

# the server's own headers have unused parameters
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter

REGRESS = setup $(filter-out setup,$(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql))))
REGRESS_OPTS = --load-extension=$(EXTENSION)
ISOLATION = $(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation --load-extension=$(EXTENSION)
TAP_TESTS = 1
PROVE_TESTS ?= test/tap/*.pl

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# see sha256() in src/key.c
ifeq ($(with_ssl),openssl)
SHLIB_LINK += -lcrypto
endif

PROVE_FLAGS += -I test/tap

$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h)

$(DATA_built): $(SQL_PARTS:%=src/%.sql)
	cat $^ > $@

# No release while these disagree.
.PHONY: checkver
checkver:
	grep -q "^default_version = '$(EXTVERSION)'" $(EXTENSION).control
	grep -q '"version": "$(EXTVERSION)"' META.json
	grep -q '^## $(EXTVERSION)' CHANGELOG.md

# At a release: every later version is held to this script by test/upgrade.sh.
.PHONY: freeze
freeze: checkver $(DATA_built)
	mkdir -p src/upgrade
	cp $(DATA_built) src/upgrade/
	cd src/upgrade && sha256sum *.sql > SHA256SUMS
