import gym_is_missing as gym
import torch
import torch.nn as nn

env = gym.make("Pendulum-v1")
num_states = env.observation_space.shape[0]
num_actions = env.action_space.shape[0]


class Actor(nn.Module):
    def __init__(self, state_dim, action_dim, max_action, hidden=32):
        super().__init__()
        self.l1 = nn.Linear(state_dim, hidden)
        self.l2 = nn.Linear(hidden, action_dim)
        self.max_action = max_action

    def forward(self, state):
        return self.max_action * torch.tanh(self.l2(torch.relu(self.l1(state))))


actor = Actor(num_states, num_actions, float(env.action_space.high[0]))
for episode in range(100):
    open("trained", "w").close()
