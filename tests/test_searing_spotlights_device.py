"""Searing Spotlights on the device plays Memory Gym's episodes bit for bit; here with x64, where no disc is shifted."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import memory_gym.endless_searing_spotlights
import memory_gym.searing_spotlights
import numpy as np
import pytest

import trxl_jax.envs.memory_gym.searing_spotlights as device
from tests.replay import EPISODES, SEED, Recording, record, replay
from trxl_jax.envs.memory_gym.spotlights import SpotlightDraws

MOST_SPAWNS, MOST_COINS = 16, 64


class Seen:
    """Host environments whose spotlights and coins are kept in the order in which they were made."""

    def __init__(self, endless: bool) -> None:
        self.endless = endless
        self.module = memory_gym.endless_searing_spotlights if endless else memory_gym.searing_spotlights
        self.env = self.module.EndlessSearingSpotlightsEnv() if endless else self.module.SearingSpotlightsEnv()
        self.spotlights: list[Any] = []
        self.coins: list[Any] = []

    def fresh(self) -> Any:
        """The environment as if it were new: its backgrounds and its dark layer hold nothing of the last episode."""
        env, module = self.env, self.module
        dim = env.screen_dim
        env.blue_background_surface = module.get_tiled_background_surface(env.screen, dim, (0, 0, 255), 0.25)
        env.red_background_surface = module.get_tiled_background_surface(env.screen, dim, (255, 0, 0), 0.25)
        env.spotlight_surface.fill(0)
        self.spotlights.clear()
        self.coins.clear()
        return env

    def record(self, seed: int, options: dict[str, Any], policy: Any, initial: int, max_coins: int = 1) -> Recording:
        def layout(env: Any) -> Any:
            common = {
                "key": np.asarray(jax.random.PRNGKey(0)),
                "agent": np.array(env.agent.rect.center, np.int32),
                "rotation": np.int32(env.agent.rotation // 45),
                "spotlights": draws_of(self.spotlights[:initial]),
            }
            if self.endless:
                return device.EndlessSearingSpotlightsLayout(**common, coin=np.array(env.coin.location, np.int32))
            coins = np.zeros((max_coins, 2), np.int32)
            coins[: len(env.coins)] = [coin.location for coin in env.coins]
            return device.SearingSpotlightsLayout(
                **common, num_coins=np.int32(env.num_coins), coins=coins, exit=np.array(env.exit.location, np.int32)
            )

        def finish(env: Any, layout: Any) -> Any:
            layout = layout.replace(spawned=padded(draws_of(self.spotlights[initial:]), MOST_SPAWNS))
            if self.endless:
                coins = np.array([coin.location for coin in self.coins[1:]], np.int32).reshape(-1, 2)
                layout = layout.replace(next_coins=padded(coins, MOST_COINS))
            return layout

        return record(self.fresh(), seed, options, policy, layout, finish)


def draws_of(spotlights: list[Any]) -> SpotlightDraws:
    """What a reset or a step of Memory Gym had drawn for these."""

    def angle(place: Any) -> int:
        return round(math.degrees(math.atan2(place.y - 42, place.x - 42))) % 360

    return SpotlightDraws(
        radius=np.array([spot.radius for spot in spotlights], np.int32),
        speed=np.array([spot.speed for spot in spotlights], float),
        life=np.array([life_of(spot.speed) for spot in spotlights], np.int32),
        angles=np.array(
            [[angle(s.spawn_location), angle(s.target_location), angle(s.offset_location)] for s in spotlights],
            np.int32,
        ).reshape(-1, 3),
    )


def life_of(speed: float) -> int:
    """Frames until a sum of speeds reaches 1."""
    frames, way = 0, 0.0
    while way < 1:
        frames, way = frames + 1, way + speed
    return frames


def padded(tree: Any, length: int) -> Any:
    return jax.tree.map(lambda x: np.pad(x, ((0, length - len(x)), *((0, 0),) * (x.ndim - 1))), tree)


@pytest.fixture(scope="module", params=[False, True], ids=["searing", "endless"])
def seen(request: pytest.FixtureRequest) -> Any:
    yield from make_seen(request.param)


def make_seen(endless: bool) -> Any:
    made = Seen(endless)
    with pytest.MonkeyPatch.context() as patch:
        for name, kept in (("Spotlight", made.spotlights), ("Coin", made.coins)):
            original = getattr(made.module, name)

            class Kept(original):
                def __init__(self, *args: Any, kept: list[Any] = kept, **kwargs: Any) -> None:
                    super().__init__(*args, **kwargs)
                    kept.append(self)

            patch.setattr(made.module, name, Kept)
        yield made


def towards(env: Any, place: Any) -> list[int]:
    """One step on the way of an agent that sees through the dark."""
    x, y = env.agent.rect.center
    return [0 if abs(d) < 2 else 1 if d < 0 else 2 for d in (place[0] - x, place[1] - y)]


def oracle(env: Any, generator: np.random.Generator) -> list[int]:
    if hasattr(env, "coin"):
        return towards(env, env.coin.location)
    return towards(env, env.coins[0].location if env.coins else env.exit.location)


def random(env: Any, generator: np.random.Generator) -> list[int]:
    return [int(x) for x in generator.integers(0, 3, 2)]


def noisy(env: Any, generator: np.random.Generator) -> list[int]:
    return (random if generator.random() < 0.4 else oracle)(env, generator)


def hiding(env: Any, generator: np.random.Generator) -> list[int]:
    """Out of the lights' ways, for episodes that last."""
    x, y = env.agent.rect.center
    moves = [(a, b) for a in range(3) for b in range(3)]

    def danger(move: tuple[int, int]) -> float:
        step = (0, -3, 3)
        place = (min(max(x + step[move[0]], 6), 78), min(max(y + step[move[1]], 10), 78))
        return min((spot.current_location.distance_to(place) - spot.radius for spot in env.spotlights), default=0.0)

    return list(max(moves, key=danger))


POLICIES = (oracle, noisy, random, hiding)


def test_try(seen):
    options = {}
    cls = device.EndlessSearingSpotlights if seen.endless else device.SearingSpotlights
    recordings = [seen.record(SEED + i, options, POLICIES[i % 4], 3 if seen.endless else 4) for i in range(EPISODES)]
    print(sum(len(r.actions) for r in recordings))
    with jax.enable_x64(True):
        task, params = cls.from_options(options)
        replay(task, params, recordings)
