# make train   sets up .venv and trains PPO on two MPI processes; ENV, ALG, NP and ARGS change what is trained
# make docs    a site of the pages in docs/, in build/site
# make test    the tests that take less than minutes, two files at a time;  make slow  the learning tests;  make lint  ruff
ALG  ?= ppo2
ENV  ?= CartPole-v1
NP   ?= 2
ifeq ($(ENV),CartPole-v1)
ARGS ?= --num_timesteps=3e5 --target_return=475
endif

VENV := .venv
BIN  := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: train test slow lint docs clean

train: $(READY)
	@test -t 1 && view=live || view=lines; \
	COLUMNS=$$(tput cols 2>/dev/null || echo 80) \
	  $(BIN)/mpirun -np $(NP) $(BIN)/python run.py --alg=$(ALG) --env=$(ENV) --view=$$view $(ARGS) && \
	echo "next: the play command above shows the policy; make train ENV=HalfCheetah-v5 ARGS=--num_timesteps=3e5;" \
	  "$(BIN)/baselines-lite --help"

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart=0

slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .

docs: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet && echo "the site: build/site/index.html"

# The first Python from 3.11 to 3.13 that is found, PYTHON first if it is set.
$(READY): setup.py
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	  if $$python -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    found=$$python; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "error: no Python from 3.11 to 3.13 was found (TensorFlow has no wheels for others); install one, or name it: make PYTHON=/path/to/python3" >&2; \
	  exit 2; \
	fi; \
	echo "setting up $(VENV) with $$($$found --version): a minute or two, once"; \
	$$found -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[mpi,mujoco,video,tensorboard,plot,benchmark,docs,test]'
	@touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info
